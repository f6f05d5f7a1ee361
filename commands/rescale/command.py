"""`lately rescale …`."""

from __future__ import annotations

import asyncio
from functools import partial

import click
import msgspec

from app.errors import EX_DIFFERENT
from app.settings import Settings
from commands.output import ProgressLine, echo, encode_difference, format_difference

#: Limit of the files that a broker keeps open.
MAX_PARTITIONS = 10_000


@click.command()
@click.option("--partitions", type=click.IntRange(1, MAX_PARTITIONS), help="New number of partitions.")
@click.option("--cleanup", is_flag=True, help="Delete the previous generation; first run `lately verify`.")
@click.option("--abandon", is_flag=True, help="Delete the new generation before the cutover.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--within", type=click.IntRange(0), default=0, help="Longest wait for the new workers, s; 0: no limit.")
@click.option("--anyway", is_flag=True, help="Switch even if the tables differ, or no old worker can run.")
@click.option("--samples", type=click.IntRange(0), default=20, help="Number of differences to print.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
def rescale(
    partitions: int | None, cleanup: bool, abandon: bool, dry_run: bool, within: int, anyway: bool, samples: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Change the number of partitions: fill new topics and tables beside the old ones, compare, and switch.

    After a kill or a stop, run it again to continue. Exit 3: the tables differ, nothing was switched.
    """
    if (partitions is not None) + cleanup + abandon != 1:
        raise click.UsageError("give exactly one of --partitions N, --cleanup and --abandon")
    settings = Settings.from_env()
    if partitions is None:
        _delete(settings, abandon, dry_run, as_json)
    elif dry_run:
        _plan(settings, partitions, as_json)
    else:
        _run(settings, partitions, within, anyway, samples, as_json)


def _run(settings: Settings, partitions: int, within: int, anyway: bool, samples: int, as_json: bool) -> None:
    from commands.rescale import rescale as rescaling

    options = rescaling.RescaleOptions(within, anyway)
    report = partial(echo, err=True)
    result = asyncio.run(rescaling.run(settings, partitions, options, report, ProgressLine("events")))
    for difference in result.differences[:samples]:
        echo(encode_difference(difference, "before") if as_json else format_difference(difference, "the old table"))
    for name in result.different_totals[:samples]:
        echo(_json({"kind": "totals", "product_name": name}) if as_json else f"totals   of {name} differ")
    if as_json:
        echo(_json(result.to_dict()))
    elif result.was_done:
        echo(f"generation {result.generation} with {result.partitions} partitions is already active")
    elif result.switched:
        echo(
            f"generation {result.generation} with {result.partitions} partitions is active: "
            f"{result.events:,} events copied, {result.users:,} users compared, "
            f"{len(result.differences) + len(result.different_totals)} differences; "
            f"publishing paused for {result.paused_s:.1f} s"
        )
    else:
        echo(
            f"{len(result.differences)} purchases and {len(result.different_totals)} totals differ: nothing was "
            "switched. `lately replay` and `lately verify --repair` correct the old tables; "
            "if `orders` has lost events, "
            "`lately source snapshot --all` publishes the rows again; then repeat this command"
        )
    if not result.switched:
        raise SystemExit(EX_DIFFERENT)


def _plan(settings: Settings, partitions: int, as_json: bool) -> None:
    from app.topics import Topics
    from commands.rescale import rescale as rescaling

    new, records = asyncio.run(rescaling.dry_run(settings, partitions))
    topics = [topic.name for topic in Topics(new).all]
    if as_json:
        fields = {"generation": new.generation, "partitions": partitions, "records": records, "topics": topics}
        echo(_json({**fields, "dry_run": True}))
    else:
        echo(
            f"generation {new.generation} would have {partitions} partitions, and {records:,} offsets would be copied "
            f"to {Topics(new).orders.name}; topics: {', '.join(topics)}"
        )


def _delete(settings: Settings, is_abandoned: bool, dry_run: bool, as_json: bool) -> None:
    from commands.rescale.cleanup import abandon, cleanup

    done = asyncio.run((abandon if is_abandoned else cleanup)(settings, dry_run))
    if as_json:
        echo(_json({"generation": done.generation, "deleted": done.topics, "dry_run": dry_run}))
    else:
        verb = "would be" if dry_run else "is"
        echo(f"generation {done.generation} {verb} deleted: {', '.join(done.topics) or 'no topics exist'}")


def _json(fields: dict[str, object]) -> str:
    return msgspec.json.encode(fields).decode()
