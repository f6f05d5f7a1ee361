"""`lately tables …`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from app.settings import Settings
from app.topics import TABLES
from commands.options import worker_option
from commands.output import ProgressLine

if TYPE_CHECKING:
    from commands.tables.dump_file import Head


@click.group()
def tables() -> None:
    """Dump the tables to a file, restore them from it, and compare two copies of them."""


_file = click.argument("file", type=click.Path(path_type=Path))
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")


@tables.command("digest")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--table", "chosen", multiple=True, type=click.Choice(TABLES), help="Only this one; several times.")
@worker_option
@_as_json
def digest(file: Path | None, chosen: tuple[str, ...], worker: str | None, as_json: bool) -> None:
    """Show keys, position and a digest of each partition; of a dump where FILE is given, else of the workers."""
    from commands.tables import digest as digesting
    from commands.tables import dump_file

    if file is not None:
        parts = [one for one in dump_file.verify(file).parts if not chosen or one.table in chosen]
    else:
        parts = asyncio.run(digesting.run(Settings.from_env(), chosen or TABLES, worker))
    for one in parts:
        said = {name: getattr(one, name) for name in ("table", "partition", "position", "keys", "digest")}
        position = "-" if one.position is None else one.position
        _say(said, as_json, f"{one.table:18}{one.partition:5}{position:>12}{one.keys:>12,}  {one.digest}")


@tables.command("dump")
@_file
@_as_json
def dump(file: Path, as_json: bool) -> None:
    """Write all tables as they are at one moment to FILE; workers may run, or none."""
    from commands.tables import dump as dumping

    head = asyncio.run(dumping.run(Settings.from_env(), file, ProgressLine("keys")))
    said = {"file": str(file), "bytes": file.stat().st_size, **_summary(head)}
    _say(said, as_json, f"{head.keys:,} keys are in {file}, {said['bytes']:,} bytes")


@tables.command("restore")
@_file
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
@_as_json
def restore(file: Path, dry_run: bool, as_json: bool) -> None:
    """Make the tables what they are in FILE, while no worker runs; then the workers read on from there."""
    from commands.tables import restore as restoring

    done = asyncio.run(restoring.run(Settings.from_env(), file, dry_run, ProgressLine("keys")))
    said = {**_summary(done.head), "dry_run": dry_run, "values": done.values, "tombstones": done.tombstones,
            "records": done.records}  # fmt: skip
    would = "would be " if dry_run else ""
    _say(
        said, as_json,
        f"the dump of {done.head.app_id}, {done.head.made_at}, has {done.head.keys:,} keys: {done.values:,} values and "
        f"{done.tombstones:,} tombstones {would}written, {done.records:,} records {would}sent again",
    )  # fmt: skip


def _summary(head: Head) -> dict[str, object]:
    return {"app_id": head.app_id, "made_at": head.made_at, "partitions": head.partitions, "keys": head.keys}


def _say(said: dict[str, object], as_json: bool, line: str) -> None:
    click.echo(msgspec.json.encode(said).decode() if as_json else line)
