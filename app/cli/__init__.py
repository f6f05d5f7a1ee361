"""The command `lately`: Faust's own command line, with ours added to it; one file per command."""

from __future__ import annotations

import sys
from collections.abc import Callable

from app.cli.dlq import dlq
from app.cli.doctor import doctor
from app.cli.replay import replay
from app.cli.report import report
from app.cli.rescale import rescale
from app.cli.settings import config, token
from app.cli.source import source
from app.cli.tables import tables
from app.cli.trace import trace
from app.cli.users import users
from app.cli.verify import verify
from app.errors import LatelyError

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
