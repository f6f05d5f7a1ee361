"""`lately rescale …`."""

from __future__ import annotations

import asyncio
from functools import partial

import click
import msgspec

from app.errors import EX_DIFFERENT
from app.settings import Settings
from commands.output import ProgressLine, encode_difference, format_difference

#: More of a broker's files than anybody wants.
MOST_PARTITIONS = 10_000


@click.command()
@click.option("--partitions", type=click.IntRange(1, MOST_PARTITIONS), help="How many there shall be.")
@click.option("--cleanup", is_flag=True, help="Delete the generation before this one; after `lately verify`.")
@click.option("--abandon", is_flag=True, help="Delete the generation that was begun and not switched to.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@click.option("--within", type=click.IntRange(0), default=0, help="Wait so long for the new workers, s; 0: for ever.")
@click.option("--anyway", is_flag=True, help="Switch although the tables differ.")
@click.option("--samples", type=click.IntRange(0), default=20, help="Differences to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
def rescale(
    partitions: int | None, cleanup: bool, abandon: bool, dry_run: bool, within: int, anyway: bool, samples: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Change the number of partitions: fill new topics and tables beside the old ones, compare, and switch.

    Killed or stopped, it goes on when it is run again. Exit 3: the tables differ, nothing was switched.
    """
    if (partitions is not None) + cleanup + abandon != 1:
        raise click.UsageError("say one of --partitions N, --cleanup and --abandon")
    settings = Settings.from_env()
    if partitions is None:
        _delete(settings, abandon, dry_run, as_json)
    elif dry_run:
        _plan(settings, partitions, as_json)
    else:
        _run(settings, partitions, within, anyway, samples, as_json)


def _run(settings: Settings, partitions: int, within: int, anyway: bool, samples: int, as_json: bool) -> None:
    from commands.rescale import rescale as rescaling

    asked = rescaling.Asked(within, anyway)
    say = partial(click.echo, err=True)
    done = asyncio.run(rescaling.run(settings, partitions, asked, say, ProgressLine("events")))
    for one in done.found[:samples]:
        click.echo(encode_difference(one, "before") if as_json else format_difference(one, "the old table"))
    for name in done.products[:samples]:
        click.echo(_json({"kind": "totals", "product_name": name}) if as_json else f"totals   of {name} differ")
    if as_json:
        click.echo(_json(done.shown()))
    elif done.already:
        click.echo(
            f"generation {done.generation} with {done.partitions} partitions counts already: nothing was left to do"
        )
    elif done.switched:
        click.echo(
            f"generation {done.generation} with {done.partitions} partitions counts: {done.events:,} events copied, "
            f"{done.users:,} users compared, {len(done.found) + len(done.products)} differences; "
            f"publishing waited for {done.paused_s:.1f} s"
        )
    else:
        click.echo(
            f"{len(done.found)} purchases and {len(done.products)} totals differ: nothing is switched. `lately replay` "
            "and `lately verify --repair` mend the old tables; where `orders` has forgotten events, "
            "`lately source snapshot --all` publishes the rows again; then run this again"
        )
    if not done.switched:
        raise SystemExit(EX_DIFFERENT)


def _plan(settings: Settings, partitions: int, as_json: bool) -> None:
    from app.topics import Topics
    from commands.rescale import rescale as rescaling

    new, records = asyncio.run(rescaling.dry_run(settings, partitions))
    topics = [topic.name for topic in Topics(new).all]
    if as_json:
        said = {"generation": new.generation, "partitions": partitions, "records": records, "topics": topics}
        click.echo(_json({**said, "dry_run": True}))
    else:
        click.echo(
            f"generation {new.generation} would have {partitions} partitions, and {records:,} offsets would be copied "
            f"into {Topics(new).orders.name}; topics: {', '.join(topics)}"
        )


def _delete(settings: Settings, abandons: bool, dry_run: bool, as_json: bool) -> None:
    from commands.rescale.cleanup import abandon, cleanup

    done = asyncio.run((abandon if abandons else cleanup)(settings, dry_run))
    if as_json:
        click.echo(_json({"generation": done.generation, "deleted": done.topics, "dry_run": dry_run}))
    else:
        would = "would be " if dry_run else "is "
        click.echo(f"generation {done.generation} {would}deleted: {', '.join(done.topics) or 'nothing was left'}")


def _json(said: dict[str, object]) -> str:
    return msgspec.json.encode(said).decode()
