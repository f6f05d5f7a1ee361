"""`lately source …`: run the event source, set it up, look after it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import closing

import click
import msgspec

from app.errors import EX_USAGE, BadSource, PortTaken
from app.settings import OUTBOX, Settings
from commands.output import Progress, say_findings

FIRST_SNAPSHOT = "1d"


@click.group(invoke_without_command=True)
@click.pass_context
def source(context: click.Context) -> None:
    """Publish the shop's orders (MySQL) as events (Kafka); without a subcommand: run."""
    if context.invoked_subcommand is None:
        _run()


@source.command("run")
def run() -> None:
    """Publish the outbox until stopped."""
    _run()


def _since(command: Callable) -> Callable:
    command = click.option("--all", "everything", is_flag=True, help="All orders, however old.")(command)
    return click.option(
        "--since", default=None, help=f"Orders since then: 12h, 2d, 2026-01-31T00:00:00Z. Default {FIRST_SNAPSHOT}."
    )(command)


@source.command("setup")
@_since
@click.option("--print-sql", is_flag=True, help="Only print the statements.")
@click.option("--apply", is_flag=True, help="Execute them; the default.")
def setup(since: str | None, everything: bool, print_sql: bool, apply: bool) -> None:
    """Create the outbox and its triggers, and take a first snapshot."""
    from source import setup as commands

    settings = Settings.from_env()
    if print_sql and apply:
        raise BadSource("--print-sql and --apply exclude each other")
    if print_sql:
        click.echo(commands.statements(settings))
    else:
        commands.setup(settings, _chosen(since, everything), click.echo, Progress())


@source.command("snapshot")
@_since
@click.option("--where", default=None, help="Only rows for which this SQL condition holds.")
@click.option("--resume/--restart", default=True, help="Go on with a snapshot that was interrupted, or begin anew.")
@click.option("--dry-run", is_flag=True, help="Only say what would be published.")
def snapshot(since: str | None, everything: bool, where: str | None, resume: bool, dry_run: bool) -> None:
    """Publish the rows that the table holds now; newer changes are not touched."""
    from source import snapshot as taking
    from source.setup import moment_of

    settings = Settings.from_env()
    chosen = _chosen(since, everything or (where is not None and since is None))
    moment = None if chosen is None else moment_of(chosen)
    if dry_run:
        rows, condition = taking.dry_run(settings, moment, where)
        click.echo(f"{rows} rows of {settings.source_table} would be published ({condition})")
        return
    progress = Progress()
    taken = asyncio.run(taking.run(settings, since=moment, where=where, resume=resume, progress=progress))
    click.echo(f"{taken.rows} rows are published")


@source.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(as_json: bool) -> None:
    """Look at everything the source needs; exit 2 when something has to be mended."""
    from source import check as checking

    if say_findings(checking.check(Settings.from_env()), as_json):
        raise SystemExit(EX_USAGE)


@source.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show how the source stands: who publishes, what waits, how far a snapshot is."""
    from source import status as standing

    shown = standing.status(Settings.from_env())
    if as_json:
        click.echo(msgspec.json.encode(shown).decode())
    else:
        for name, value in shown.items():
            click.echo(f"{name:24}{'' if value is None else value}")


@source.command("teardown")
@click.option("--force", is_flag=True, help="Also when changes are not published yet; they are lost.")
def teardown(force: bool) -> None:
    """Remove the outbox and its triggers from the shop's database."""
    from source import setup as commands

    commands.teardown(Settings.from_env(), force, click.echo)


def _chosen(since: str | None, everything: bool) -> str | None:
    if since is not None and everything:
        raise BadSource("--since and --all exclude each other")
    return None if everything else since or FIRST_SNAPSHOT


def _run() -> None:
    from mode import Worker
    from prometheus_client import REGISTRY, start_http_server

    from app import metrics
    from app.control.generation import require_begun
    from app.kafka.admin import ensure_topics
    from app.logs import dress
    from source import mysql, triggers
    from source.service import Source

    settings = Settings.from_env()
    with closing(mysql.connect(settings)) as connection:
        if settings.source_mode == OUTBOX:
            triggers.require(connection, settings)
    asyncio.run(require_begun(settings))
    asyncio.run(ensure_topics(settings))
    for one in metrics.OF_WORKERS:
        REGISTRY.unregister(one)
    if settings.source_metrics_port:
        try:
            start_http_server(settings.source_metrics_port, addr=settings.web_host)
        except OSError as exc:
            raise PortTaken(
                f"cannot serve /metrics on {settings.web_host}:{settings.source_metrics_port} ({exc.strerror}): "
                "choose another with LATELY_SOURCE_METRICS_PORT"
            ) from None
    running = Source(settings)

    class Logging(Worker):
        """A worker whose log is what the settings ask for."""

        def on_setup_root_logger(self, logger: logging.Logger, level: int) -> None:
            super().on_setup_root_logger(logger, level)
            dress(logger, settings)

    worker = Logging(running, loglevel="INFO", redirect_stdouts=False, loop=asyncio.new_event_loop())
    try:
        worker.execute_from_commandline()
    except BaseException:
        if running.given_up is None:
            raise
        raise running.given_up from None
