"""The owners of the partitions of tables, as Faust's group has assigned them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faust.types import TP

if TYPE_CHECKING:
    from app.core import Lately


class PartitionOwnership:
    """The owners of partitions, and whether this worker may answer for its own partitions.

    Tables are named as in the app; also a table that this process does not run has owners in other
    processes.
    """

    def __init__(self, app: Lately) -> None:
        self._app = app
        self._changelogs = app.changelogs

    def is_ready(self) -> bool:
        """Return whether the tables of this worker are complete."""
        app = self._app
        return app.tables.actives_ready and not app.rebalancing and not app.should_stop

    def is_owned(self, table: str, partition: int) -> bool:
        """Return whether this worker owns a partition of a table.

        Raises KeyError for an unknown table.
        """
        return self._app.assignor.is_active(TP(self._changelogs[table], partition))

    def find_owner(self, table: str, partition: int) -> str | None:
        """Return the address of the worker that owns a partition; None if no worker does.

        During a rebalance this is the former owner, which answers until it receives the new
        assignment.
        """
        if not self.has_table(table):
            owner = self._app.group_directory.find_owner(table, partition)
            # This address may have belonged to a worker of another group that does not run any more.
            return None if owner is None or self._is_own(owner) else owner
        changelog = self._changelogs[table]
        for url, partitions in self._app.assignor.table_metadata(changelog).items():
            if partition in partitions.get(changelog, ()):
                return url
        return None

    def find_standbys(self, table: str, partition: int) -> list[str]:
        """Return the addresses of the other workers with a standby of a partition.

        A standby may still be warming up.
        """
        if self.has_table(table):
            changelog, distribution = self._changelogs[table], self._app.assignor.standby_distribution
            urls = [url for url, partitions in distribution.items() if partition in partitions.get(changelog, ())]
        else:
            urls = self._app.group_directory.find_standbys(table, partition)
        return [url for url in urls if not self._is_own(url)]

    def may_run(self, table: str) -> bool:
        """Return whether some process runs the agent that writes a table, or it is not known yet."""
        return self.has_table(table) or self._app.group_directory.may_run(table)

    async def is_caught_up(self, table: str, partition: int, within_s: float) -> bool:
        """Return whether this worker has a complete copy of a partition.

        It is complete if it contains everything that was committed before the call.

        Waits up to `within_s` seconds for missing records. The caller must read the copy before it
        awaits anything.
        """
        tables = self._app.tables
        return table in tables and await tables.standby.is_caught_up(tables[table], partition, within_s)

    def check_frozen(self) -> None:
        """End the process if it was frozen for longer than its session."""
        self._app.freeze_guard.check()

    def has_table(self, table: str) -> bool:
        """Return whether this process runs the agent that writes a table."""
        return table in self._app.tables

    def find_writer(self, table: str) -> str | None:
        """Return the agent that writes a table, in any process; None for an unknown table."""
        return self._app.table_writers.get(table)

    def selected_agents(self) -> tuple[str, ...]:
        """Return the agents that this process runs."""
        return self._app.selected_agents

    def _is_own(self, url: str) -> bool:
        return url.rstrip("/") == self._app.address
