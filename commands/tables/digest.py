"""Digests of the workers' tables, for `lately tables digest`."""

from __future__ import annotations

from collections.abc import Iterable

from app.settings import Settings
from commands.worker_client import WorkerDigest, open_worker_client


async def read_digests(settings: Settings, tables: Iterable[str], worker: str | None) -> list[WorkerDigest]:
    """Read the digest of each partition, each at one moment. Raises ServerAway, BadSetting."""
    async with open_worker_client(settings, worker) as client:
        return [
            await client.read_digest(table, partition) for table in tables for partition in range(settings.partitions)
        ]
