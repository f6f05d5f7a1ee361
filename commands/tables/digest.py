"""`lately tables digest`: whether two workers, or a worker and a dump, hold the same."""

from __future__ import annotations

from collections.abc import Iterable

from app.settings import Settings
from commands.worker_client import PartDigest, workers


async def run(settings: Settings, tables: Iterable[str], worker: str | None) -> list[PartDigest]:
    """The digest of each partition of these tables, each at one moment. Raises ServerAway, BadSetting."""
    async with workers(settings, worker) as asked:
        return [await asked.digest(table, partition) for table in tables for partition in range(settings.partitions)]
