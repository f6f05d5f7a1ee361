"""`lately replay`."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click
import msgspec

from app.errors import EX_DIFFERENT
from app.settings import Settings
from commands.output import ProgressLine, format_difference

if TYPE_CHECKING:
    from app.kafka.order_log import EventSelection
    from commands.replay.replay import ReplayOutcome


@click.command()
@click.option("--user", help="Only the events of this user.")
@click.option("--order", help="Only the events of this order.")
@click.option("--since", help="Only what was published since then: 12h, 2d, 2026-01-31T00:00:00Z.")
@click.option("--from", "start", metavar="P:OFFSET", help="Only partition P of `orders`, from this offset on.")
@click.option("--into", type=click.Choice(["shadow", "live"]), default="shadow", show_default=True,
              help="Into a shadow that is compared, or the same events once more into the live tables.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Change nothing: print the differences, or count the events.")
@click.option("--samples", type=click.IntRange(0), default=20, show_default=True, help="Differences shown of a kind.")
@click.option("--worker", default=None, help="Address of any worker; default http://LATELY_WEB_HOST:LATELY_WEB_PORT.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object per difference, then one of the outcome.")
def replay(
    user: str | None,
    order: str | None,
    since: str | None,
    start: str | None,
    into: str,
    dry_run: bool,
    samples: int,
    worker: str | None,
    as_json: bool,
) -> None:
    """Fold the events in `orders` once more and compare; exit 3 when differences are left."""
    from commands.replay import replay as replaying
    from domain.differences import PurchaseDifference

    settings, part = Settings.from_env(), _part(user, order, since, start)
    progress = ProgressLine("events")
    if into == "live":
        events = asyncio.run(replaying.republish_events(settings, part, progress, dry_run))
        said = f"{events:,} events {'would be' if dry_run else 'are'} published again"
        click.echo(msgspec.json.encode({"events": events, "published": not dry_run}).decode() if as_json else said)
        return
    shown: Counter[str] = Counter()

    def tell(one: PurchaseDifference) -> None:
        shown[one.kind] += 1
        if as_json:
            click.echo(msgspec.json.encode(_keyed(one.to_dict())).decode())
        elif shown[one.kind] <= samples:
            click.echo(format_difference(_keyed(one.to_dict()), "events", "the events"))

    outcome = asyncio.run(replaying.replay_events(settings, part, tell, progress, dry_run, worker))
    click.echo(msgspec.json.encode(outcome.shown()).decode() if as_json else _outcome(outcome, dry_run))
    if outcome.left:
        raise SystemExit(EX_DIFFERENT)


def _part(user: str | None, order: str | None, since: str | None, start: str | None) -> EventSelection:
    from app.kafka.order_log import EventSelection
    from source.setup import parse_since

    if since is not None and start is not None:
        raise click.UsageError("--since and --from exclude each other")
    place = None if start is None else re.fullmatch(r"(\d{1,6}):(\d{1,18})", start, re.ASCII)
    if start is not None and place is None:
        raise click.UsageError(f"--from {start!r} is not like 2:1500, a partition and an offset")
    moment = None
    if since is not None:
        moment = int(datetime.fromisoformat(parse_since(since)).replace(tzinfo=timezone.utc).timestamp() * 1000)
    return EventSelection(user, order, moment, None if place is None else (int(place[1]), int(place[2])))


def _keyed(shown: dict) -> dict:
    """What is not from the table is from the events here."""
    return {("events" if name == "database" else name): value for name, value in shown.items()}


def _outcome(outcome: ReplayOutcome, dry_run: bool) -> str:
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(outcome.found.items()))
    return (
        f"{outcome.events:,} events folded, {outcome.users:,} users compared in {outcome.seconds:.1f} s: "
        f"{outcome.found.total()} differences"
        + (f" ({kinds})" if kinds else "")
        + ("" if dry_run else f", {outcome.mended} mended")
        + (f", {outcome.deferred} not decided, because they keep changing" if outcome.deferred else "")
        + (
            ""
            if outcome.whole
            else "\nevents before this part were not read: what no event stands for is not looked for"
        )
        + ("\nwithout --dry-run it is mended" if outcome.left and dry_run else "")
    )
