"""The command `lately`: Faust's own command line, with ours added to it; one file per command."""

from __future__ import annotations

import sys
from collections.abc import Callable

from commands.dlq.command import dlq
from commands.doctor.command import doctor
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

#: These need no Faust app, and must work while Kafka is away.
COMMANDS = (config, token, source, verify, trace, replay, report, dlq, tables, users, doctor, rescale)


def main() -> None:
    """Run `lately …`; exit 2 for a usage or configuration error, 75 when a server is away."""
    from faust.cli.faust import cli

    for one in COMMANDS:
        cli.add_command(one)
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    if command in {one.name for one in COMMANDS}:
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


if __name__ == "__main__":
    main()
