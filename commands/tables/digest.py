"""`lately tables digest`: whether two workers, or a worker and a dump, hold the same."""

from __future__ import annotations

from collections.abc import Iterable

from app.settings import Settings
from commands.worker_client import WorkerDigest, open_worker_client


async def run(settings: Settings, tables: Iterable[str], worker: str | None) -> list[WorkerDigest]:
    """The digest of each partition of these tables, each at one moment. Raises ServerAway, BadSetting."""
    async with open_worker_client(settings, worker) as asked:
        return [
            await asked.read_digest(table, partition) for table in tables for partition in range(settings.partitions)
        ]
