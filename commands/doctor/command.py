"""`lately doctor`."""

from __future__ import annotations

import click

from app.settings import Settings
from commands.output import print_findings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Look at everything Lately needs, each finding with its fix; exit 1 when something has to be mended."""
    from commands.doctor import doctor as looking

    if print_findings(looking.check_everything(Settings.from_env()), as_json):
        raise SystemExit(1)
