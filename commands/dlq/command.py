"""The command `lately dlq`: list, show, retry and drop dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import click
import msgspec

from app.settings import Settings
from commands.output import echo

Command = TypeVar("Command", bound=Callable[..., object])


@click.group()
def dlq() -> None:
    """Manage dead letters: records of `orders` and rows of the shop that could not be read."""


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")


@dlq.command("list")
@click.option("--reason", default=None, help="Only dead letters with this reason.")
@_as_json
def dlq_list(reason: str | None, as_json: bool) -> None:
    """List the open dead letters, neither retried nor dropped."""
    from app.kafka import dead_letter_topic

    letters = asyncio.run(
        dead_letter_topic.find_letters(Settings.from_env(), dead_letter_topic.letter_filter((), reason))
    )
    for letter in letters:
        line = f"{letter.id:12}{letter.failed_at:28}{letter.reason:20}{letter.origin:24}{letter.message}"
        _print_letter(letter.as_dict(), as_json, line)
    if not as_json:
        echo(f"{len(letters)} dead letters")


@dlq.command("show")
@click.argument("place")
@_as_json
def dlq_show(place: str, as_json: bool) -> None:
    """Show all fields of one dead letter.

    PLACE is its id in `lately dlq list`, for example 0@12.
    """
    from app.kafka import dead_letter_topic

    letters = asyncio.run(
        dead_letter_topic.find_letters(Settings.from_env(), dead_letter_topic.letter_filter((place,), None))
    )
    dead_letter_topic.require_letters((place,), letters)
    fields = letters[0].as_dict()
    lines = (f"{name:12}{'' if value is None else value}" for name, value in fields.items())
    _print_letter(fields, as_json, "\n".join(lines))


def _settle_options(command: Command) -> Command:
    command = click.option("--dry-run", is_flag=True, help="Change nothing: print what would be done.")(command)
    command = click.option("--reason", default=None, help="Only dead letters with this reason.")(command)
    command = click.option("--all", "all_letters", is_flag=True, help="All open dead letters.")(command)
    return _as_json(click.argument("places", nargs=-1)(command))


@dlq.command("retry")
@_settle_options
def dlq_retry(places: tuple[str, ...], all_letters: bool, reason: str | None, dry_run: bool, as_json: bool) -> None:
    """Publish dead letters to their original topic again.

    An unreadable one becomes a dead letter again.
    """
    _settle(places, all_letters, reason, dry_run, as_json, "retried")


@dlq.command("drop")
@_settle_options
def dlq_drop(places: tuple[str, ...], all_letters: bool, reason: str | None, dry_run: bool, as_json: bool) -> None:
    """Close dead letters without a retry; `lately dlq list` no longer shows them."""
    _settle(places, all_letters, reason, dry_run, as_json, "dropped")


def _settle(
    places: tuple[str, ...], all_letters: bool, reason: str | None, dry_run: bool, as_json: bool, action: str
) -> None:
    from app.kafka import dead_letter_topic

    if not (places or all_letters or reason):
        raise click.UsageError("select dead letters: ids as `lately dlq list` shows them, --reason, or --all")
    if places and all_letters:
        raise click.UsageError("places and --all exclude each other")
    settings = Settings.from_env()
    if places:
        selection = dead_letter_topic.letter_filter(places, None)
        dead_letter_topic.require_letters(places, asyncio.run(dead_letter_topic.find_letters(settings, selection)))
    accepted, refused = asyncio.run(
        dead_letter_topic.settle_letters(settings, dead_letter_topic.letter_filter(places, reason), action, dry_run)
    )
    outcome = f"would be {action}" if dry_run else action
    for letter in accepted:
        _print_letter({**letter.as_dict(), "outcome": outcome}, as_json, f"{letter.id:12}{outcome}")
    for letter, obstacle in refused.items():
        outcome = f"kept: {obstacle}"
        _print_letter({**letter.as_dict(), "outcome": outcome}, as_json, f"{letter.id:12}{outcome}")
    if refused:
        raise SystemExit(1)


def _print_letter(fields: dict[str, object], as_json: bool, line: str) -> None:
    echo(msgspec.json.encode(fields).decode() if as_json else line)
