"""The command `lately`: Faust's own command line, with ours added to it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import click

from app.config import Settings
from app.errors import BadSource, LatelyError

FIRST_SNAPSHOT = "1d"


def main() -> None:
    """Run `lately …`; exit 2 for a usage or configuration error, 75 when a server is away."""
    from faust.cli.faust import cli

    cli.add_command(source)
    cli.add_command(config)
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    if command in ("source", "config"):
        # These need no Faust app, and must work while Kafka is away.
        _one_line_errors(lambda: cli(obj=None))
        return
    from app import app

    app.main()


def _one_line_errors(run: Callable[[], object]) -> None:
    try:
        run()
    except LatelyError as exc:
        print(f"lately: {exc}", file=sys.stderr)
        raise SystemExit(exc.exit_code) from None


@click.command()
def config() -> None:
    """Print the settings in use, secrets as ***."""
    for name, value in Settings.from_env().shown().items():
        click.echo(f"LATELY_{name.upper()}={value}")


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
def setup(since: str | None, everything: bool, print_sql: bool) -> None:
    """Create the outbox and its triggers, and take a first snapshot."""
    from app.source import setup as commands

    settings = Settings.from_env()
    if print_sql:
        click.echo(commands.statements(settings))
    else:
        commands.setup(settings, _chosen(since, everything), click.echo)


@source.command("snapshot")
@_since
def snapshot(since: str | None, everything: bool) -> None:
    """Publish the rows that the table holds now, once more."""
    from app.source import setup as commands

    commands.snapshot(Settings.from_env(), _chosen(since, everything), click.echo)


def _chosen(since: str | None, everything: bool) -> str | None:
    if since is not None and everything:
        raise BadSource("--since and --all exclude each other")
    return None if everything else since or FIRST_SNAPSHOT


def _run() -> None:
    from mode import Worker

    from app.source import mysql, triggers
    from app.source.service import Source
    from app.topics import ensure_topics

    settings = Settings.from_env()
    connection = mysql.connect(settings)
    try:
        triggers.require(connection, settings)
    finally:
        connection.close()
    asyncio.run(ensure_topics(settings))
    Worker(
        Source(settings), loglevel="INFO", redirect_stdouts=False, loop=asyncio.new_event_loop()
    ).execute_from_commandline()
