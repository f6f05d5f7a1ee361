"""`lately dlq …`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import click
import msgspec

from app.settings import Settings


@click.group()
def dlq() -> None:
    """Look after the dead letters: records of `orders` and rows of the shop that could not be read."""


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")


@dlq.command("list")
@click.option("--reason", default=None, help="Only those with this reason.")
@_as_json
def dlq_list(reason: str | None, as_json: bool) -> None:
    """Show the dead letters that were neither retried nor dropped."""
    from app.kafka import dead_letter_topic as letters

    found = asyncio.run(letters.find(Settings.from_env(), letters.among((), reason)))
    for one in found:
        _say_letter(one.shown(), as_json, f"{one.id:12}{one.failed_at:28}{one.reason:20}{one.origin:24}{one.message}")
    if not as_json:
        click.echo(f"{len(found)} dead letters")


@dlq.command("show")
@click.argument("place")
@_as_json
def dlq_show(place: str, as_json: bool) -> None:
    """Show one dead letter whole; PLACE is as in `list`, such as 0@12."""
    from app.kafka import dead_letter_topic as letters

    found = asyncio.run(letters.find(Settings.from_env(), letters.among((place,), None)))
    letters.require_all((place,), found)
    shown = found[0].shown()
    _say_letter(
        shown, as_json, "\n".join(f"{name:12}{'' if value is None else value}" for name, value in shown.items())
    )


def _settling(command: Callable) -> Callable:
    command = click.option("--dry-run", is_flag=True, help="Only say what would be done.")(command)
    command = click.option("--reason", default=None, help="Only those with this reason.")(command)
    command = click.option("--all", "everything", is_flag=True, help="All of them.")(command)
    return _as_json(click.argument("places", nargs=-1)(command))


@dlq.command("retry")
@_settling
def dlq_retry(places: tuple[str, ...], everything: bool, reason: str | None, dry_run: bool, as_json: bool) -> None:
    """Send dead letters to where they came from, as they were; those that still cannot be read come back."""
    _settle(places, everything, reason, dry_run, as_json, "retried")


@dlq.command("drop")
@_settling
def dlq_drop(places: tuple[str, ...], everything: bool, reason: str | None, dry_run: bool, as_json: bool) -> None:
    """Show dead letters no more."""
    _settle(places, everything, reason, dry_run, as_json, "dropped")


def _settle(
    places: tuple[str, ...], everything: bool, reason: str | None, dry_run: bool, as_json: bool, done: str
) -> None:
    from app.kafka import dead_letter_topic as letters

    if not (places or everything or reason):
        raise click.UsageError("say which: places as `lately dlq list` shows them, --reason, or --all")
    if places and everything:
        raise click.UsageError("places and --all exclude each other")
    settings = Settings.from_env()
    if places:
        letters.require_all(places, asyncio.run(letters.find(settings, letters.among(places, None))))
    fit, kept = asyncio.run(letters.settle(settings, letters.among(places, reason), done, dry_run))
    outcome = f"would be {done}" if dry_run else done
    for one in fit:
        _say_letter({**one.shown(), "outcome": outcome}, as_json, f"{one.id:12}{outcome}")
    for one, why in kept.items():
        _say_letter({**one.shown(), "outcome": f"kept: {why}"}, as_json, f"{one.id:12}kept: {why}")
    if kept:
        raise SystemExit(1)


def _say_letter(shown: dict[str, object], as_json: bool, line: str) -> None:
    click.echo(msgspec.json.encode(shown).decode() if as_json else line)
