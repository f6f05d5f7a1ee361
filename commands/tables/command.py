"""`lately tables …`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from app.settings import Settings
from app.topics import TABLES
from commands.options import worker_option
from commands.output import ProgressLine, echo

if TYPE_CHECKING:
    from commands.tables.dump_file import DumpHead


@click.group()
def tables() -> None:
    """Dump the tables to a file, restore them, and compare two copies."""


_file = click.argument("file", type=click.Path(path_type=Path))
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")


@tables.command("digest")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--table", "chosen", multiple=True, type=click.Choice(TABLES), help="Only this table; repeatable.")
@worker_option
@_as_json
def digest(file: Path | None, chosen: tuple[str, ...], worker: str | None, as_json: bool) -> None:
    """Show keys, position and digest of each partition of a dump FILE, by default of the workers."""
    from commands.tables.digest import read_digests
    from commands.tables.dump_file import PartitionSummary, verify_dump
    from commands.worker_client import WorkerDigest

    digests: Sequence[PartitionSummary | WorkerDigest]
    if file is not None:
        digests = [summary for summary in verify_dump(file).parts if not chosen or summary.table in chosen]
    else:
        digests = asyncio.run(read_digests(Settings.from_env(), chosen or TABLES, worker))
    for row in digests:
        fields = {name: getattr(row, name) for name in ("table", "partition", "position", "keys", "digest")}
        position = "-" if row.position is None else row.position
        _print(fields, as_json, f"{row.table:18}{row.partition:5}{position:>12}{row.keys:>12,}  {row.digest}")


@tables.command("dump")
@_file
@_as_json
def dump(file: Path, as_json: bool) -> None:
    """Write all tables at one moment to FILE, with or without running workers."""
    from commands.tables import dump as dumping

    head = asyncio.run(dumping.run(Settings.from_env(), file, ProgressLine("keys")))
    size = file.stat().st_size
    fields = {"file": str(file), "bytes": size, **_summary(head)}
    _print(fields, as_json, f"{head.keys:,} keys are in {file}, {size:,} bytes")


@tables.command("restore")
@_file
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
@_as_json
def restore(file: Path, dry_run: bool, as_json: bool) -> None:
    """Restore the tables from FILE while no worker runs; then start the workers, which continue from there."""
    from commands.tables import restore as restoring

    done = asyncio.run(restoring.run(Settings.from_env(), file, dry_run, ProgressLine("keys")))
    fields = {**_summary(done.head), "dry_run": dry_run, "values": done.values, "tombstones": done.tombstones,
            "records": done.records}  # fmt: skip
    would = "would be " if dry_run else ""
    _print(
        fields, as_json,
        f"the dump of {done.head.app_id}, {done.head.made_at}, has {done.head.keys:,} keys: {done.values:,} values and "
        f"{done.tombstones:,} tombstones {would}written, {done.records:,} records {would}sent again",
    )  # fmt: skip


def _summary(head: DumpHead) -> dict[str, object]:
    return {"app_id": head.app_id, "made_at": head.made_at, "partitions": head.partitions, "keys": head.keys}


def _print(fields: dict[str, object], as_json: bool, line: str) -> None:
    echo(msgspec.json.encode(fields).decode() if as_json else line)
