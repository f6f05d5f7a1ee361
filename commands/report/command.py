"""`lately report …`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.errors import EX_DIFFERENT, ServerAway
from app.settings import Settings
from commands.options import worker_option
from commands.output import ProgressLine
from commands.priority import lower_priority

if TYPE_CHECKING:
    from commands.report import ReportResult
    from commands.report.model import Report


@click.group()
def report() -> None:
    """Count what was bought, by the log of all events or by MySQL: sales, products, payments, customers."""


def _options(*options: Callable) -> Callable:
    def add(command: Callable) -> Callable:
        for one in reversed(options):
            command = one(command)
        return command

    return add


_output_options = _options(
    click.option("--format", "form", type=click.Choice(["table", "csv", "json", "html"]), default=None,
                 help="Default: that of the end of --out, or table."),
    click.option("--out", type=click.Path(path_type=Path), default=None, help="The file to write; default: print it."),
    click.option("--force", is_flag=True, help="Replace a file that is there."),
)  # fmt: skip

_check_options = _options(
    click.option("--check/--no-check", default=None,
                 help="Compare the log with the live tables; default: if a worker runs and there is no --as-of."),
    worker_option,
    click.option("--memory-mb", type=click.IntRange(64), default=128, show_default=True,
                 help="Memory for counting, MiB; what does not fit goes to disk."),
    click.option("--idle", is_flag=True, help="Take only processor time that nobody else wants: for a report in the "
                 "session, container or cgroup of a worker."),
)  # fmt: skip

_span_options = _options(
    click.option("--from", "since", required=True, help="The first day, or moment, such as 2026-01-31T08:00:00Z."),
    click.option("--to", "until", required=True, help="The day, or moment, before which it ends."),
    click.option("--tz", default="UTC", show_default=True, help="The time zone of days, such as Europe/Berlin."),
    click.option("--source", type=click.Choice(["log", "mysql"]), default="log", show_default=True,
                 help="The log of all events, or the shop's table as it is now."),
    click.option("--as-of", default=None,
                 help="A position in the log as reports print it, or a moment; default: its end now."),
    click.option("--compare", type=click.Path(path_type=Path), default=None,
                 help="An earlier report of the same in JSON: says what was restated since."),
    _output_options,
    _check_options,
)  # fmt: skip

_by_option = click.option("--by", type=click.Choice(["hour", "day", "week"]), default="day", show_default=True,
                   help="What a row is about; weeks begin on Monday.")  # fmt: skip

_ranking_options = _options(
    click.option("--by", type=click.Choice(["hour", "day", "week"]), default=None, help="One list for each of these."),
    click.option("--rank", type=click.Choice(["revenue", "purchases"]), default="revenue", show_default=True,
                 help="What comes first."),
    click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Rows of a list."),
)  # fmt: skip


@report.command("sales")
@_by_option
@_span_options
def sales(**options: object) -> None:
    """Orders, purchases and revenue by hour, day or week."""
    _report("sales", **options)


@report.command("products")
@_ranking_options
@_span_options
def products(**options: object) -> None:
    """The products that were bought most."""
    _report("products", **options)


@report.command("payments")
@_ranking_options
@_span_options
def payments(**options: object) -> None:
    """How it was paid."""
    _report("payments", **options)


@report.command("customers")
@_by_option
@_span_options
def customers(**options: object) -> None:
    """New and returning customers, and how many placed two orders or more."""
    _report("customers", **options)


@report.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@_output_options
def show(file: Path, form: str | None, out: Path | None, force: bool) -> None:
    """Show a report that was kept as JSON, in any format."""
    form = _output_format(form, out, force)
    _write_report(_read_stored(file), form, out, force)


@report.command("diff")
@click.argument("earlier", type=click.Path(path_type=Path))
@click.argument("later", type=click.Path(path_type=Path))
@_output_options
def diff(earlier: Path, later: Path, form: str | None, out: Path | None, force: bool) -> None:
    """Show what differs between two reports of the same that were kept as JSON; exit 3 if anything does."""
    from commands.report import restatement

    form = _output_format(form, out, force)
    changed = restatement.only_changes(restatement.restate(_read_stored(later), _read_stored(earlier)))
    _write_report(changed, form, out, force)
    if changed.rows or changed.total[-2:] != [0, "0.00"]:
        raise SystemExit(EX_DIFFERENT)


@report.command("list")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
def list_(folder: Path | None, as_json: bool) -> None:
    """List the reports that were kept as JSON in FOLDER, by default LATELY_REPORT_DIR."""
    from commands.report import archive

    for path, found in archive.stored_reports(folder or Path(Settings.from_env().report_dir)):
        click.echo(archive.summary_json(path, found) if as_json else archive.summary_line(path, found))


@report.command("daily")
@click.option("--day", default=None, help="The day, such as 2026-01-31; default: yesterday.")
@click.option("--tz", default=None, help="The time zone of the day; default LATELY_REPORT_TZ.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=None, help="Default LATELY_REPORT_DIR.")
@_check_options
def daily(
    day: str | None, tz: str | None, folder: Path | None, check: bool | None, worker: str | None, memory_mb: int,
    idle: bool,
) -> None:  # fmt: skip
    """Keep all reports of one day as JSON and as pages; files that are there already stay as they are."""
    from commands.report import daily as days

    lower_priority(idle)
    settings = Settings.from_env()
    made, paths = asyncio.run(
        days.write_daily_reports(settings, day, tz or settings.report_tz, folder or Path(settings.report_dir), check is not False,
                  worker, memory_mb, ProgressLine("events"))
    )  # fmt: skip
    for path in paths:
        click.echo(path)
    if made is not None:
        _print_comparison(made, check)


def _report(
    name: str, *, since: str, until: str, by: str | None, tz: str, source: str, as_of: str | None, compare: Path | None,
    form: str | None, out: Path | None, force: bool, check: bool | None, worker: str | None, memory_mb: int,
    idle: bool, rank: str = "revenue", limit: int = 100,
) -> None:  # fmt: skip
    from commands import report as reports
    from commands.report import calendar, restatement
    from commands.report.build import ReportQuery

    if source != "log" and as_of is not None:
        raise click.UsageError("--as-of needs --source log: a table of the shop is as it is now")
    if source != "log" and check:
        raise click.UsageError("--check needs --source log; `lately verify` compares with MySQL")
    settings, form = Settings.from_env(), _output_format(form, out, force)
    zone = calendar.zone(tz)
    begins, ends = calendar.span(since, until, zone)
    asked = ReportQuery(name, begins, ends, by, zone, tz, rank, limit, source)
    calendar.buckets(begins, ends, by, zone)
    earlier = None if compare is None else _read_stored(compare)
    lower_priority(idle)
    checks = source == "log" and (as_of is None if check is None else check)
    made = asyncio.run(
        reports.run(
            settings, [asked], as_of, checks, worker, memory_mb, ProgressLine("events" if source == "log" else "rows")
        )
    )
    (report,) = made.reports
    _write_report(report if earlier is None else restatement.restate(report, earlier), form, out, force)
    if checks:
        _print_comparison(made, check)


def _output_format(form: str | None, out: Path | None, force: bool) -> str:
    """The format to write; what can be seen to be wrong about the file is said before anything is read."""
    from commands.report import atomic_file, formats

    if form is None:
        ending = "" if out is None else out.suffix.removeprefix(".")
        form = ending if ending in formats.FORMATS else formats.TABLE
    if out is not None:
        atomic_file.require_writable(out, force)
    return form


def _write_report(report: Report, form: str, out: Path | None, force: bool) -> None:
    from commands.report import atomic_file, formats

    if out is None:
        click.get_binary_stream("stdout").write(formats.encode(report, form))
    else:
        atomic_file.write(out, lambda temporary: temporary.write_bytes(formats.encode(report, form)), force)


def _read_stored(path: Path) -> Report:
    from commands.report import archive

    return archive.read(path)


def _print_comparison(made: ReportResult, check: bool | None) -> None:
    """Say on stderr how the log and the live tables compare, so that it is no part of the report."""
    if isinstance(made.compared, str):
        if check:
            raise ServerAway(f"the log was not compared with the live tables: {made.compared}")
        click.echo(f"not compared with the live tables: {made.compared}", err=True)
        return
    for line in made.compared.lines():
        click.echo(line, err=True)
    if made.compared.different:
        raise SystemExit(EX_DIFFERENT)
