"""Owners of partitions that a test decides, in place of a consumer group."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

TABLES = ("by_user", "product_partials", "by_product", "baskets", "similar", "product_sales")


@dataclass
class FixedOwnership:
    """Implements web.worker.Ownership: this worker owns all partitions that are not in `others`."""

    is_worker_ready: bool = True
    #: Partition -> the address of the worker that owns it, None if no worker does.
    others: Mapping[int, str | None] = field(default_factory=dict)
    #: The partitions whose copy on this worker is complete.
    caught_up: frozenset[int] = frozenset()
    #: The partitions whose copy on this worker does not become complete.
    lagging: frozenset[int] = frozenset()
    tables: Sequence[str] = TABLES
    #: Table -> the worker of another group that owns all of its partitions, None if no worker does.
    elsewhere: Mapping[str, str | None] = field(default_factory=dict)
    #: Partition -> the addresses of the other workers with a standby.
    standbys: Mapping[int, Sequence[str]] = field(default_factory=dict)

    def is_ready(self) -> bool:
        """Return whether the tables of this worker are complete."""
        return self.is_worker_ready

    def is_owned(self, table: str, partition: int) -> bool:
        """Return whether this worker owns a partition of a table."""
        return table in self.tables and partition not in self.others

    def find_owner(self, table: str, partition: int) -> str | None:
        """Return the address of the owner of a partition of a table; None if no worker owns it."""
        return self.others.get(partition) if table in self.tables else self.elsewhere.get(table)

    def find_standbys(self, table: str, partition: int) -> list[str]:
        """Return the addresses of the other workers with a standby of a partition of a table."""
        return [*self.standbys.get(partition, ())]

    def may_run(self, table: str) -> bool:
        """Return whether some process runs the agent that writes a table."""
        return table in self.tables or table in self.elsewhere

    async def is_caught_up(self, table: str, partition: int, within_s: float) -> bool:
        """Return whether this worker has a complete copy of a partition."""
        if partition in self.lagging:
            await asyncio.sleep(within_s)
        return partition in self.caught_up

    def check_frozen(self) -> None:
        """Do nothing: the process was not frozen."""

    def has_table(self, table: str) -> bool:
        """Return whether this process runs the agent that writes a table."""
        return table in self.tables

    def find_writer(self, table: str) -> str | None:
        """Return the agent that writes a table."""
        return table if table in TABLES else None

    def selected_agents(self) -> Sequence[str]:
        """Return the agents that this process runs."""
        return self.tables
