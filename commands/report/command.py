"""`lately report …`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.errors import EX_DIFFERENT, ServerAway
from app.settings import Settings
from commands.options import worker_option
from commands.output import ProgressLine, echo
from commands.priority import lower_priority

if TYPE_CHECKING:
    from commands.report.model import Report
    from commands.report.report import ReportResult


@click.group()
def report() -> None:
    """Count purchases from the event log or from MySQL: sales, products, payments, customers."""


Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


def _options(*options: Decorator) -> Decorator:
    """Combine options into one decorator."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_output_options = _options(
    click.option("--format", "form", type=click.Choice(["table", "csv", "json", "html"]), default=None,
                 help="Default: the extension of --out, or table."),
    click.option("--out", type=click.Path(path_type=Path), default=None,
                 help="File to write; default: standard output."),
    click.option("--force", is_flag=True, help="Replace an existing file."),
)  # fmt: skip

_check_options = _options(
    click.option("--check/--no-check", default=None,
                 help="Compare the log with the live tables; default: if a worker runs and --as-of is not set."),
    worker_option,
    click.option("--memory-mb", type=click.IntRange(64), default=128, show_default=True,
                 help="Memory for counting, MiB; larger data spills to disk."),
    click.option("--idle", is_flag=True, help="Use only idle processor time: for a report in the "
                 "session, container or cgroup of a worker."),
)  # fmt: skip

_span_options = _options(
    click.option("--from", "since", required=True, help="First day, or first moment, such as 2026-01-31T08:00:00Z."),
    click.option("--to", "until", required=True, help="Day or moment of the end, exclusive."),
    click.option("--tz", default="UTC", show_default=True, help="Time zone of days, such as Europe/Berlin."),
    click.option("--source", type=click.Choice(["log", "mysql"]), default="log", show_default=True,
                 help="The event log, or the current rows of the shop's table."),
    click.option("--as-of", default=None,
                 help="Position in the log, as printed by a report, or a moment; default: its current end."),
    click.option("--compare", type=click.Path(path_type=Path), default=None,
                 help="Earlier JSON report with the same parameters: adds the changes since then."),
    _output_options,
    _check_options,
)  # fmt: skip

_by_option = click.option("--by", type=click.Choice(["hour", "day", "week"]), default="day", show_default=True,
                   help="Unit of a row; weeks begin on Monday.")  # fmt: skip

_ranking_options = _options(
    click.option("--by", type=click.Choice(["hour", "day", "week"]), default=None, help="One list per unit."),
    click.option("--rank", type=click.Choice(["revenue", "purchases"]), default="revenue", show_default=True,
                 help="Order of the rows."),
    click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Rows of each list."),
)  # fmt: skip


@report.command("sales")
@_by_option
@_span_options
def sales(**options: Any) -> None:
    """Orders, purchases and revenue by hour, day or week."""
    _report("sales", **options)


@report.command("products")
@_ranking_options
@_span_options
def products(**options: Any) -> None:
    """Products with the most purchases or revenue."""
    _report("products", **options)


@report.command("payments")
@_ranking_options
@_span_options
def payments(**options: Any) -> None:
    """Payment methods."""
    _report("payments", **options)


@report.command("customers")
@_by_option
@_span_options
def customers(**options: Any) -> None:
    """New and returning customers, and customers with two orders or more."""
    _report("customers", **options)


@report.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@_output_options
def show(file: Path, form: str | None, out: Path | None, force: bool) -> None:
    """Show a stored JSON report in any format."""
    form = _output_format(form, out, force)
    _write_report(_read_stored(file), form, out, force)


@report.command("diff")
@click.argument("earlier", type=click.Path(path_type=Path))
@click.argument("later", type=click.Path(path_type=Path))
@_output_options
def diff(earlier: Path, later: Path, form: str | None, out: Path | None, force: bool) -> None:
    """Show the differences between two stored JSON reports with equal parameters; exit 3 if there are any."""
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
    """List the JSON reports in FOLDER, by default LATELY_REPORT_DIR."""
    from commands.report import archive

    for path, stored in archive.stored_reports(folder or Path(Settings.from_env().report_dir)):
        echo(archive.summary_json(path, stored) if as_json else archive.summary_line(path, stored))


@report.command("daily")
@click.option("--day", default=None, help="Day, such as 2026-01-31; default: yesterday.")
@click.option("--tz", default=None, help="Time zone of the day; default LATELY_REPORT_TZ.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=None, help="Default LATELY_REPORT_DIR.")
@_check_options
def daily(
    day: str | None, tz: str | None, folder: Path | None, check: bool | None, worker: str | None, memory_mb: int,
    idle: bool,
) -> None:  # fmt: skip
    """Write all reports of one day as JSON and HTML; existing files are not changed."""
    from commands.report.daily import write_daily_reports

    lower_priority(idle)
    settings = Settings.from_env()
    result, paths = asyncio.run(
        write_daily_reports(
            settings, day, tz or settings.report_tz, folder or Path(settings.report_dir), check is not False,
            worker, memory_mb, ProgressLine("events"),
        )
    )  # fmt: skip
    for path in paths:
        echo(str(path))
    if result is not None:
        _print_comparison(result, check)


def _report(
    name: str, *, since: str, until: str, by: str | None, tz: str, source: str, as_of: str | None, compare: Path | None,
    form: str | None, out: Path | None, force: bool, check: bool | None, worker: str | None, memory_mb: int,
    idle: bool, rank: str = "revenue", limit: int = 100,
) -> None:  # fmt: skip
    from commands.report import calendar, restatement
    from commands.report import report as reports
    from commands.report.build import ReportQuery

    if source != "log" and as_of is not None:
        raise click.UsageError("--as-of requires --source log: a table of the shop has only its current rows")
    if source != "log" and check:
        raise click.UsageError("--check requires --source log; `lately verify` compares with MySQL")
    settings, form = Settings.from_env(), _output_format(form, out, force)
    zone = calendar.zone(tz)
    start, end = calendar.span(since, until, zone)
    query = ReportQuery(name, start, end, by, zone, tz, rank, limit, source)
    calendar.buckets(start, end, by, zone)
    earlier = None if compare is None else _read_stored(compare)
    lower_priority(idle)
    checks = source == "log" and (as_of is None if check is None else check)
    result = asyncio.run(
        reports.run(
            settings, [query], as_of, checks, worker, memory_mb, ProgressLine("events" if source == "log" else "rows")
        )
    )
    (current,) = result.reports
    _write_report(current if earlier is None else restatement.restate(current, earlier), form, out, force)
    if checks:
        _print_comparison(result, check)


def _output_format(form: str | None, out: Path | None, force: bool) -> str:
    """Choose the output format, and check the output file before anything is read."""
    from commands.report import atomic_file, formats

    if form is None:
        extension = "" if out is None else out.suffix.removeprefix(".")
        if extension == "parquet":  # without a format, 0.1 wrote Parquet to such a file
            raise click.UsageError("Parquet was removed in 0.2.0: use --out with .csv or .json, which DuckDB reads")
        form = extension if extension in formats.FORMATS else formats.TABLE
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


def _print_comparison(result: ReportResult, check: bool | None) -> None:
    """Print the comparison with the live tables to stderr, so that it is no part of the report."""
    comparison = result.comparison
    if isinstance(comparison, str):
        if check:
            raise ServerAway(f"the log was not compared with the live tables: {comparison}")
        echo(f"not compared with the live tables: {comparison}", err=True)
        return
    for line in comparison.lines():
        echo(line, err=True)
    if comparison.different:
        raise SystemExit(EX_DIFFERENT)
