"""The interfaces between the web views and the worker.

A test can implement them without Faust and without Kafka.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol, TypeVar

from app.services.progress import PartitionProgress
from app.services.stall_detector import Stall
from app.worker_state import TablePartitions
from chunks import RestoreProgress

T = TypeVar("T")


class Ownership(Protocol):
    """The owners of the partitions of all tables, and whether this worker may respond for its own."""

    def is_ready(self) -> bool:
        """Return whether the tables of this worker are complete."""

    def is_owned(self, table: str, partition: int) -> bool:
        """Return whether this worker owns a partition of a table."""

    def find_owner(self, table: str, partition: int) -> str | None:
        """Return the address of the owner of a partition of a table; None if no worker owns it."""

    def find_standbys(self, table: str, partition: int) -> list[str]:
        """Return the addresses of the other workers with a standby of a partition of a table.

        A standby may still be warming up.
        """

    def may_run(self, table: str) -> bool:
        """Return whether some process runs the agent that writes a table, or it is not known yet."""

    async def is_caught_up(self, table: str, partition: int, within_s: float) -> bool:
        """Return whether a copy on this worker contains everything committed before the call.

        Waits up to `within_s` seconds for missing records. The caller must read the copy before it
        awaits anything.
        """

    def check_frozen(self) -> None:
        """End the process if it was frozen for longer than its session."""

    def has_table(self, table: str) -> bool:
        """Return whether this process runs the agent that writes a table."""

    def find_writer(self, table: str) -> str | None:
        """Return the agent that writes a table, in any process; None for an unknown table."""

    def selected_agents(self) -> Sequence[str]:
        """Return the agents that this process runs."""


class WorkerState(Protocol):
    """The state of this worker and of its group, for the pages of its operator."""

    def address(self) -> str:
        """Return the URL of this worker, without a slash at its end."""

    def is_recovering(self) -> bool:
        """Return whether the tables are being restored."""

    def recovery_progress(self) -> RestoreProgress:
        """Return the progress of the last restore."""

    def partitions(self) -> dict[str, TablePartitions]:
        """Return the partitions of each table on this worker."""

    def standby_positions(self) -> list[tuple[str, int, int]]:
        """Return table, partition and changelog position of each standby."""

    def incomplete_partitions(self) -> dict[str, int]:
        """Return for each table the number of partitions with permanently missing records."""

    def partition_progress(self) -> list[PartitionProgress]:
        """Return the progress in each source partition of this worker, by topic and partition."""

    def requests_per_s(self) -> float | None:
        """Return the number of HTTP requests per second; None before it is known."""

    def stalls(self) -> Sequence[Stall]:
        """Return the parts of the worker that are stuck, as the watchdog observed last."""

    def workers(self) -> Mapping[str, list[int]]:
        """Return the partitions of each worker with the same agents, by address."""

    async def wait(self, awaitable: Awaitable[T]) -> T | None:
        """Return the result of `awaitable`; None if this worker stops first."""
