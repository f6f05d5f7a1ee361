"""`lately source …`: run the event source, set it up, and inspect it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import click
import msgspec

from app.errors import EX_USAGE, BadSetting, BadSource, PortTaken
from app.settings import OUTBOX, Settings
from app.topics import Topics
from commands.output import ProgressLine, echo, print_findings

if TYPE_CHECKING:
    from source.service import SourceService

FIRST_SNAPSHOT_AGE = "1d"

Command = Callable[..., None]


@click.group(invoke_without_command=True)
@click.pass_context
def source(context: click.Context) -> None:
    """Publish the shop's orders (MySQL) as events (Kafka). Without a subcommand: run."""
    if context.invoked_subcommand is None:
        _run()


@source.command("run")
def run() -> None:
    """Publish changes until stopped."""
    _run()


def _since_options(command: Command) -> Command:
    command = click.option("--all", "all_orders", is_flag=True, help="All orders, however old.")(command)
    return click.option(
        "--since",
        default=None,
        help=f"Orders since this time: 12h, 2d, 2026-01-31T00:00:00Z. Default {FIRST_SNAPSHOT_AGE}.",
    )(command)


@source.command("setup")
@_since_options
@click.option("--print-sql", is_flag=True, help="Only print the statements.")
@click.option("--apply", is_flag=True, help="Execute the statements; the default.")
@click.option("--take-over", is_flag=True,
              help="Also when the outbox belongs to other topics, or the topics to another shop.")  # fmt: skip
def setup(since: str | None, all_orders: bool, print_sql: bool, apply: bool, take_over: bool) -> None:
    """Create the outbox and its triggers, and take a first snapshot."""
    from source.print_sql import setup_statements
    from source.setup import setup as set_up

    settings = Settings.from_env()
    if print_sql and apply:
        raise BadSource("--print-sql and --apply exclude each other: use one of them")
    if print_sql:
        echo(setup_statements(settings))
    else:
        set_up(settings, _selected_since(since, all_orders), echo, ProgressLine(), take_over=take_over)


@source.command("snapshot")
@_since_options
@click.option("--where", default=None, help="Only rows for which this SQL condition is true.")
@click.option("--resume/--restart", default=True, help="Continue an interrupted snapshot, or start a new one.")
@click.option("--dry-run", is_flag=True, help="Only print how many rows would be published.")
def snapshot(since: str | None, all_orders: bool, where: str | None, resume: bool, dry_run: bool) -> None:
    """Publish the present rows of the table. Newer changes are not replaced."""
    from source import snapshot as source_snapshot
    from source.setup import parse_since

    settings = Settings.from_env()
    selected = _selected_since(since, all_orders or (where is not None and since is None))
    since_time = None if selected is None else parse_since(selected)
    if dry_run:
        rows, condition = source_snapshot.count_rows(settings, since_time, where)
        echo(f"{rows} rows of {settings.source_table} would be published ({condition})")
        return
    state = asyncio.run(
        source_snapshot.run(settings, since=since_time, where=where, resume=resume, progress=ProgressLine())
    )
    echo(f"{state.rows} rows are published")


@source.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(as_json: bool) -> None:
    """Check all that the source needs; exit with 2 when something must be corrected."""
    from source.check import check_source

    if print_findings(check_source(Settings.from_env()), as_json):
        raise SystemExit(EX_USAGE)


@source.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show the status of the source: its leader, unpublished changes, and the snapshot."""
    from source.status import read_status

    fields = read_status(Settings.from_env())
    if as_json:
        echo(msgspec.json.encode(fields).decode())
    else:
        problems = fields.pop("problems", [])
        for name, value in fields.items():
            echo(f"{name:24}{'' if value is None else value}")
        for problem in problems if isinstance(problems, list) else ():
            echo(f"problem: {problem['kind']}: {problem['message']}")


@source.command("sign")
@click.option("--yes", is_flag=True, help="Sign them; without this option they are only printed.")
def sign(yes: bool) -> None:
    """Sign the present states in Kafka with LATELY_SIGNING_KEY, after it was set for the first time."""
    from app.control import state_topic

    settings = Settings.from_env()
    if not settings.signing_key:
        raise BadSetting("LATELY_SIGNING_KEY is not set: use the key of all processes, it signs the states")
    states = asyncio.run(state_topic.sign_again(settings, accept_unsigned=True, dry_run=not yes))
    for state in states:
        echo(state)
    echo(f"{len(states)} states {'are' if yes else 'would be'} signed")


@source.command("teardown")
@click.option("--force", is_flag=True, help="Also when changes are not published yet; they are lost.")
def teardown(force: bool) -> None:
    """Remove the outbox and its triggers from the shop's database."""
    from source.teardown import teardown as remove

    remove(Settings.from_env(), force, echo)


def _selected_since(since: str | None, all_orders: bool) -> str | None:
    if since is not None and all_orders:
        raise BadSource("--since and --all exclude each other: use one of them")
    return None if all_orders else since or FIRST_SNAPSHOT_AGE


def _run() -> None:
    from mode import Worker

    from app.control.identity import prepare_topics
    from app.logs import configure_handlers
    from source import mysql, triggers
    from source.outbox_table import locate_outbox
    from source.service import SourceService

    settings = Settings.from_env()
    with closing(mysql.connect(settings)) as connection:
        if settings.source_mode == OUTBOX:
            triggers.require_installed(connection, locate_outbox(connection, settings))
    asyncio.run(prepare_topics(settings))
    service = SourceService(settings, Topics(settings))
    _serve_metrics(settings, service)

    class SourceWorker(Worker):
        """A process whose log has the format of the settings."""

        def on_setup_root_logger(self, logger: logging.Logger, level: int) -> None:
            super().on_setup_root_logger(logger, level)
            configure_handlers(logger, settings)

    worker = SourceWorker(service, loglevel="INFO", redirect_stdouts=False, loop=asyncio.new_event_loop())
    try:
        worker.execute_from_commandline()
    except BaseException:
        if service.fatal_error is None:
            raise
        raise service.fatal_error from None


def _serve_metrics(settings: Settings, service: SourceService) -> None:
    from prometheus_client import REGISTRY

    from app import metrics
    from source.metrics_server import serve_metrics

    for metric in metrics.WORKER_ONLY:
        REGISTRY.unregister(metric)
    if settings.source_metrics_port:
        try:
            serve_metrics(settings.web_host, settings.source_metrics_port, service.readiness)
        except OSError as exc:
            raise PortTaken(
                f"cannot serve /metrics on {settings.web_host}:{settings.source_metrics_port} ({exc.strerror}): "
                "choose another port with LATELY_SOURCE_METRICS_PORT"
            ) from None
