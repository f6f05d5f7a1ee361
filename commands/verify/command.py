"""`lately verify`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

import click
import msgspec

from app.errors import EX_DIFFERENT, ServerAway
from app.settings import Settings
from commands.output import ProgressLine, format_difference

if TYPE_CHECKING:
    from commands.verify.verify import VerifyOutcome


@click.command()
@click.option("--user", "users", multiple=True, help="Only this user; may be given several times.")
@click.option("--repair", is_flag=True, help="Make the tables say what MySQL says, through the stream.")
@click.option("--continuous", is_flag=True, help="Again and again; answers say in meta.verified_at what is proven.")
@click.option("--every", type=click.IntRange(0), default=300, show_default=True, help="Seconds between two rounds.")
@click.option("--rows-per-s", type=click.IntRange(0), default=20_000, show_default=True,
              help="How fast MySQL is read at most; 0: as fast as it goes.")  # fmt: skip
@click.option("--samples", type=click.IntRange(0), default=20, show_default=True, help="Differences shown of a kind.")
@click.option("--resume/--restart", default=True, help="Go on with a verification that was interrupted, or begin anew.")
@click.option("--worker", default=None, help="Address of any worker; default http://LATELY_WEB_HOST:LATELY_WEB_PORT.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object per difference, then one of the outcome.")
def verify(
    users: tuple[str, ...],
    repair: bool,
    continuous: bool,
    every: int,
    rows_per_s: int,
    samples: int,
    resume: bool,
    worker: str | None,
    as_json: bool,
) -> None:
    """Compare what the workers answer with MySQL, while orders flow; exit 3 when they differ."""
    from commands.verify import verify as verifying
    from domain.differences import PurchaseDifference

    if users and continuous:
        raise click.UsageError("--user and --continuous exclude each other")
    settings = Settings.from_env()
    asked = verifying.VerifyOptions(users, repair, rows_per_s, worker, resume)
    while True:
        shown: Counter[str] = Counter()

        def tell(one: PurchaseDifference, shown: Counter[str] = shown) -> None:
            shown[one.kind] += 1
            if as_json:
                click.echo(msgspec.json.encode(one.to_dict()).decode())
            elif shown[one.kind] <= samples:
                click.echo(format_difference(one.to_dict(), "database", "MySQL"))

        try:
            outcome = asyncio.run(verifying.verify_tables(settings, asked, tell, ProgressLine()))
        except ServerAway as exc:
            if not continuous:
                raise
            click.echo(f"{exc}; trying again in {every} s", err=True)
        else:
            click.echo(msgspec.json.encode(outcome.shown()).decode() if as_json else _outcome(outcome, repair))
            if outcome.left and not continuous:
                raise SystemExit(EX_DIFFERENT)
        if not continuous:
            return
        time.sleep(every)


def _outcome(outcome: VerifyOutcome, repair: bool) -> str:
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(outcome.found.items()))
    said = (
        f"{outcome.users:,} users compared in {outcome.seconds:.1f} s: {outcome.found.total()} differences"
        + (f" ({kinds})" if kinds else "")
        + (f", {outcome.repaired} repaired" if repair else "")
        + (f", {outcome.deferred} not decided, because they keep changing" if outcome.deferred else "")
    )
    return (
        f"{said}\n`lately verify --repair` makes the tables say what MySQL says"
        if outcome.left and not repair
        else said
    )
