"""The command `lately doctor`."""

from __future__ import annotations

import click

from app.settings import Settings
from commands.output import print_findings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Check everything that Lately needs, and print each finding with its fix.

    Exit code 1 after a failed check.
    """
    from commands.doctor.doctor import check_everything

    if print_findings(check_everything(Settings.from_env()), as_json):
        raise SystemExit(1)
