"""Owners and standbys of the tables that other processes of the app write.

Processes with other agents are in other consumer groups (app/selection.py). The assignment of any
member contains the owners and standbys of its whole group, and Kafka's coordinator returns it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mode import Service

from app.kafka.admin import admin_client
from app.kafka.groups import GroupDescription, agents_of_group, describe_app_groups
from app.settings import Settings
from app.signing import WorkerAddresses
from chunks import PROTOCOL, GroupDistribution, decode_distribution
from domain.errors import LatelyError

#: Pause between two descriptions of the groups, and after an error of Kafka, s.
INTERVAL_S = 2.0
#: The assignments of a group that are tried until one can be decoded; all contain the same owners.
MAX_ASSIGNMENTS = 5
#: Limit of the reason in a log line.
MAX_REASON_CHARS = 200

#: A table and a partition of it.
TablePartition = tuple[str, int]


class GroupDirectory(Service):
    """Describes the app's other groups every two seconds, if agents run in other processes.

    `missing_agents` are the agents that other processes have to run; without any, the service does
    nothing. While Kafka does not answer, and during a rebalance of a group, the last known owners
    remain.
    """

    def __init__(
        self, settings: Settings, group: str, missing_agents: Collection[str], source_topics: Mapping[str, str],
        changelogs: Mapping[str, str], table_writers: Mapping[str, str | None], **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self._settings, self._group, self._source_topics = settings, group, source_topics
        self._missing_agents = frozenset(missing_agents)
        self._is_trusted = WorkerAddresses(settings).is_trusted
        #: Table -> its agent, and changelog -> table, of the tables that other processes write.
        self._writers = {table: agent for table, agent in table_writers.items() if agent in self._missing_agents}
        self._tables = {changelogs[table]: table for table in self._writers}
        #: None before the first answer of Kafka.
        self._running_agents: frozenset[str] | None = None
        self._distributions: dict[str, GroupDistribution] = {}
        self._owners: dict[TablePartition, str] = {}
        self._standbys: dict[TablePartition, list[str]] = {}
        #: Groups without a readable assignment that the log names already.
        self._unreadable: set[str] = set()

    def find_owner(self, table: str, partition: int) -> str | None:
        """Return the address of the owner of a partition; None if no owner is known."""
        return self._owners.get((table, partition))

    def find_standbys(self, table: str, partition: int) -> list[str]:
        """Return the addresses of the workers that have, or warm up, a standby of a partition."""
        return self._standbys.get((table, partition), [])

    def may_run(self, table: str) -> bool:
        """Return whether another group has a worker with the agent of a table.

        Also True before Kafka has answered for the first time, because it is unknown.
        """
        if table not in self._writers:
            return False
        return self._running_agents is None or self._writers[table] in self._running_agents

    def update(self, descriptions: Mapping[str, GroupDescription]) -> None:
        """Replace everything known by the present descriptions of the app's groups."""
        running: set[str] = set()
        distributions: dict[str, GroupDistribution] = {}
        for group, description in descriptions.items():
            if group == self._group or not description.workers:
                continue
            running.update(agents_of_group(group, self._source_topics))
            distribution = self._decode(group, description) or self._distributions.get(group)
            if distribution is not None:
                distributions[group] = distribution
        self._running_agents, self._distributions = frozenset(running), distributions
        self._unreadable &= descriptions.keys()
        self._owners, self._standbys = self._by_partition()

    def _decode(self, group: str, description: GroupDescription) -> GroupDistribution | None:
        """Return the owners and standbys of a group; None during a rebalance, or if unreadable."""
        if not description.assignments:
            return None
        reason = f"its assignment protocol is {description.protocol!r}"
        if description.protocol == PROTOCOL:
            for assignment in description.assignments[:MAX_ASSIGNMENTS]:
                try:
                    distribution = decode_distribution(assignment)
                except ValueError as exc:
                    reason = str(exc)
                else:
                    self._unreadable.discard(group)
                    return distribution.only(self._is_trusted)
        if group not in self._unreadable:
            self._unreadable.add(group)
            self.log.warning("the assignment of the group %s is ignored: %s", group, reason[:MAX_REASON_CHARS])
        return None

    def _by_partition(self) -> tuple[dict[TablePartition, str], dict[TablePartition, list[str]]]:
        owners: dict[TablePartition, str] = {}
        standbys: dict[TablePartition, dict[str, None]] = {}
        for group, distribution in self._distributions.items():
            agents = agents_of_group(group, self._source_topics)
            for url, key in self._table_partitions(distribution.owners, agents):
                owners[key] = url
            for url, key in self._table_partitions(distribution.standbys, agents):
                standbys.setdefault(key, {})[url] = None
        return owners, {key: list(urls) for key, urls in standbys.items()}

    def _table_partitions(
        self, workers: Mapping[str, Mapping[str, list[int]]], agents: Collection[str]
    ) -> list[tuple[str, TablePartition]]:
        """Return address and partition of each table that one of `agents` writes."""
        return [
            (url, (table, partition))
            for url, partitions in workers.items()
            for changelog, table in self._tables.items()
            if self._writers[table] in agents
            for partition in partitions.get(changelog, ())
            if partition < self._settings.partitions
        ]

    @Service.task
    async def _follow_groups(self) -> None:
        is_away = False
        while self._missing_agents and not self.should_stop:
            try:
                async with admin_client(self._settings) as admin:
                    while not self.should_stop:
                        self.update(await describe_app_groups(admin, self._settings, except_for=self._group))
                        is_away = False
                        await self.sleep(INTERVAL_S)
            except LatelyError as exc:
                if not is_away:
                    self.log.warning("the groups of other processes cannot be read (%s); trying again", exc)
                is_away = True
                await self.sleep(INTERVAL_S)
