"""The state of this worker and of its group, for the pages of its operator."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from faust.types import TP

from app.services.progress import PartitionProgress
from app.services.stall_detector import Stall
from chunks import RestoreProgress

if TYPE_CHECKING:
    from app.core import Lately

T = TypeVar("T")


class TablePartitions(NamedTuple):
    """The partitions of one table on this worker.

    `warming` are the standbys that it restores to take them over.
    """

    active: list[int]
    standby: list[int]
    warming: list[int]


class FaustWorkerState:
    """The state of a worker, read from the Faust app."""

    def __init__(self, app: Lately) -> None:
        self._app = app

    def address(self) -> str:
        """Return the URL of this worker, without a slash at its end."""
        return self._app.address

    def is_recovering(self) -> bool:
        """Return whether the tables are being restored."""
        return self._app.tables.recovery.in_recovery

    def recovery_progress(self) -> RestoreProgress:
        """Return the progress of the last restore."""
        return self._app.tables.recovery.progress

    def partitions(self) -> dict[str, TablePartitions]:
        """Return the partitions of each table on this worker."""
        assignor = self._app.assignor
        return {
            table.name: TablePartitions(
                _partitions_of(table.changelog, assignor.assigned_actives()),
                _partitions_of(table.changelog, assignor.assigned_standbys()),
                _partitions_of(table.changelog, assignor.warmup),
            )
            for table in self._app.tables.values()
        }

    def standby_positions(self) -> list[tuple[str, int, int]]:
        """Return table, partition and changelog position of each standby."""
        return [
            (table.name, partition, table.stores[partition].offset)
            for table in self._app.tables.values()
            for partition in _partitions_of(table.changelog, self._app.assignor.assigned_standbys())
            if partition in table.stores
        ]

    def incomplete_partitions(self) -> dict[str, int]:
        """Return for each table the number of partitions with permanently missing records."""
        return {
            table.name: sum(store.is_incomplete for store in table.stores.values())
            for table in self._app.tables.values()
        }

    def partition_progress(self) -> list[PartitionProgress]:
        """Return the progress in the partitions that this worker reads, by topic and partition."""
        return self._app.progress.partitions()

    def requests_per_s(self) -> float | None:
        """Return the number of HTTP requests per second; None before it is known."""
        return self._app.progress.requests_per_s()

    def stalls(self) -> Sequence[Stall]:
        """Return the parts of the worker that are stuck, as the watchdog observed last."""
        return self._app.watchdog.stalls

    def workers(self) -> dict[str, list[int]]:
        """Return the partitions of each worker with the same agents, by address."""
        tables = self._app.tables
        changelog = (tables["by_user"] if "by_user" in tables else next(iter(tables.values()))).changelog
        distribution = self._app.assignor.table_metadata(changelog)
        return {str(url).rstrip("/"): sorted(topics.get(changelog, ())) for url, topics in distribution.items()}

    async def wait(self, awaitable: Awaitable[T]) -> T | None:
        """Return the result of `awaitable`; None if this worker stops first."""
        outcome = await self._app.wait(awaitable)
        return None if outcome.stopped else outcome.result


def _partitions_of(changelog: str, tps: Iterable[TP]) -> list[int]:
    return sorted(tp.partition for tp in tps if tp.topic == changelog)
