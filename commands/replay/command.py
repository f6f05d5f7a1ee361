"""The command `lately replay`."""

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
from commands.options import worker_option
from commands.output import ProgressLine, echo, encode_difference, format_difference

if TYPE_CHECKING:
    from app.kafka.order_log import EventSelection
    from commands.replay.replay import ReplayOutcome


@click.command()
@click.option("--user", help="Only the events of this user.")
@click.option("--order", help="Only the events of this order.")
@click.option("--since", help="Only events published since this time or age: 12h, 2d, 2026-01-31T00:00:00Z.")
@click.option("--from", "start", metavar="P:OFFSET", help="Only partition P of `orders`, from this offset on.")
@click.option("--into", type=click.Choice(["shadow", "live"]), default="shadow", show_default=True,
              help="shadow: apply the events to a second table and compare it with the workers' table."
                   " live: publish the same events again.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Change nothing: print the differences, or count the events.")
@click.option("--samples", type=click.IntRange(0), default=20, show_default=True,
              help="Maximum number of differences of each kind that are printed.")  # fmt: skip
@worker_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object per difference, then the outcome.")
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
    """Compare the workers' table with the events in `orders` and repair it.

    Exit code 3 if differences remain.
    """
    from commands.replay.replay import replay_events, republish_events
    from domain.differences import PurchaseDifference

    settings, selection = Settings.from_env(), _selection(user, order, since, start)
    progress = ProgressLine("events")
    if into == "live":
        events = asyncio.run(republish_events(settings, selection, progress, dry_run))
        line = f"{events:,} events {'would be' if dry_run else 'are'} published again"
        echo(msgspec.json.encode({"events": events, "published": not dry_run}).decode() if as_json else line)
        return
    printed: Counter[str] = Counter()

    def report(difference: PurchaseDifference) -> None:
        printed[difference.kind] += 1
        if as_json:
            echo(encode_difference(difference, "events"))
        elif printed[difference.kind] <= samples:
            echo(format_difference(difference, "the events"))

    outcome = asyncio.run(replay_events(settings, selection, report, progress, dry_run, worker))
    echo(msgspec.json.encode(outcome.to_dict()).decode() if as_json else _summarize(outcome, dry_run))
    if outcome.remaining:
        raise SystemExit(EX_DIFFERENT)


def _selection(user: str | None, order: str | None, since: str | None, start: str | None) -> EventSelection:
    from app.kafka.order_log import EventSelection
    from source.setup import parse_since

    if since is not None and start is not None:
        raise click.UsageError("--since and --from exclude each other")
    position = None
    if start is not None:
        match = re.fullmatch(r"(\d{1,6}):(\d{1,18})", start, re.ASCII)
        if match is None:
            raise click.UsageError(f"--from {start!r} is not a partition and an offset, such as 2:1500")
        position = (int(match[1]), int(match[2]))
    since_ms = None
    if since is not None:
        since_ms = int(datetime.fromisoformat(parse_since(since)).replace(tzinfo=timezone.utc).timestamp() * 1000)
    return EventSelection(user, order, since_ms, position)


def _summarize(outcome: ReplayOutcome, dry_run: bool) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.differences.items()))
    lines = [
        f"{outcome.events:,} events applied, {outcome.users:,} users compared in {outcome.seconds:.1f} s: "
        f"{outcome.differences.total()} differences"
        + (f" ({kinds})" if kinds else "")
        + ("" if dry_run else f", {outcome.repaired} repaired")
        + (f", {outcome.undecided} undecided, because they keep changing" if outcome.undecided else "")
    ]
    if outcome.deleted_before:
        places = ", ".join(f"{offset} of partition {number}" for number, offset in outcome.deleted_before.items())
        lines.append(
            f"`orders` has lost its beginning: the events before offset {places} are deleted, and are not compared; "
            "`lately verify` compares with MySQL"
        )
    if not outcome.is_complete:
        lines.append("events before the selection were not read: extra purchases in the table are not reported")
    if outcome.remaining and dry_run:
        lines.append("the same command without --dry-run repairs the differences")
    return "\n".join(lines)
