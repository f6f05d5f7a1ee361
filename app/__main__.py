"""Entry point of the command `lately`: Faust's command line with the commands of Lately."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from app.folder_lock import PRIVATE
from commands.dlq.command import dlq
from commands.doctor.command import doctor
from commands.identity import identity
from commands.replay.command import replay
from commands.report.command import report
from commands.rescale.command import rescale
from commands.settings import config, token
from commands.source import source
from commands.tables.command import tables
from commands.trace.command import trace
from commands.users.command import users
from commands.verify.command import verify
from domain.errors import LatelyError
from domain.text import printable

#: Commands that need no Faust app, so they work while Kafka is away.
COMMANDS: tuple[click.Command, ...] = (
    config, token, source, verify, trace, replay, report, dlq, tables, users, doctor, rescale, identity,
)  # fmt: skip


def main() -> None:
    """Run `lately …`; exit code 2 for a usage or configuration error, 75 when a server is away."""
    os.umask(PRIVATE)
    names = {command.name for command in COMMANDS}
    if sys.argv[1:2] and sys.argv[1] in names:
        # Without an option of Faust before the command, Faust is not needed: its import takes a third of a second.
        _run_with_one_line_errors(click.Group("lately", commands=COMMANDS))
        return
    from faust.cli.faust import cli

    for command in COMMANDS:
        cli.add_command(command)
    name = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), None)
    if name in names:
        _run_with_one_line_errors(lambda: cli(obj=None))
        return
    from app import app

    app.main()


def _run_with_one_line_errors(run: Callable[[], object]) -> None:
    try:
        run()
    except LatelyError as exc:
        print(printable(f"lately: {exc}"), file=sys.stderr)
        raise SystemExit(exc.exit_code) from None


if __name__ == "__main__":
    main()
