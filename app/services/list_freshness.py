"""The freshness of lists that are computed from a copy of the sales of all products.

An order passes four topics before it is in a list:

    orders -> by_user -> purchase-changes -> baskets -> co-purchases -> similar -> changelog -> copy

Barriers pass the same way. Each observation reads first the positions of the three agents, which
are the offsets that their groups have committed, and of the copy, then the ends of the four topics.
The barriers rest on two facts.

A. **An agent's position is durable.** A group commits `PartitionTask.durable`: every transaction
   that contains a record before the position has been committed, together with all records that
   the agent derived from it. Kafka had acknowledged these records before. So they are before the
   end of their topic if the end is read after the position.
B. **The end is the high watermark**, not the last stable offset. Kafka acknowledges a commit before
   it has written the transaction's markers, and for that moment the last stable offset is before
   records that count. A reader of committed records passes the high watermark of an earlier moment
   only when all transactions before it are decided.

The steps of a barrier:

1. Read the positions P0 of by_user in all partitions of `orders`.
2. Read the ends E1 of purchase-changes. All changes derived from orders before P0 are before E1 (A).
3. Wait until the positions of baskets have reached E1: it has processed these changes (B). Read the
   ends E2 of co-purchases. All deltas derived from these changes are before E2 (A).
4. Wait until the positions of similar have reached E2 (B), then read the ends E3 of the changelog.
   All sales derived from these deltas are before E3 (A).
5. Wait until the copy has applied the changelog up to E3 (B). It contains all orders before P0, and
   `SourceStatus.freshness` returns the time until which these are all orders.

Positions pass the markers at the end of a topic, which are offsets without records: an agent fetches
them as an empty range, and its group commits the offset behind them. So a reader without a backlog
is at the end, and no record has to be fetched to find this out. If a position stays before a marker,
`as_of` does not advance; it is never too new.

A new barrier starts with each observation in which P0 has changed; several are in flight. A position
that a group committed stays true when an agent moves to another group, so the highest position of
all groups that run or ran the agent is used.

Kafka deletes the committed offsets of a deleted topic. `Barriers` discards all that was observed
when a topic with the same name replaces it.

`lately tables restore` moves the committed offsets back together with the tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from mode import Service

from app.kafka import groups
from app.kafka.admin import admin_client
from app.kafka.consume import LONG_LIVED, open_consumer, partitions_of
from app.services.barriers import Barriers, Offsets
from app.services.source_status import Freshness, SourceStatus
from app.settings import Settings
from app.topics import Topics

#: Seconds between two observations: at first, after each without progress this factor longer, up to
#: a maximum.
MIN_PAUSE_S, PAUSE_FACTOR, MAX_PAUSE_S = 0.5, 1.25, 2.0
#: The same while the lists contain all orders that the source reports.
IDLE_PAUSE_S = 5.0
#: Seconds between two looks at the status of the source during a pause.
STEP_S = 0.25
#: Seconds between two requests for the names of the groups.
GROUPS_EVERY_S = 10.0
RETRY_AFTER_S = 1.0
CONSUMER_OPTIONS: dict[str, object] = {**LONG_LIVED, "isolation_level": "read_uncommitted", "request_timeout_ms": 5_000}
#: Higher than every offset.
ANY_POSITION = 2**63


class ListFreshness(Service):
    """Proves until when the lists of this worker contain all orders."""

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        source_status: SourceStatus,
        applied: Callable[[], Mapping[int, int]],
        changelog: str,
        **kwargs: Any,
    ) -> None:
        """Create the service.

        `applied` returns for each partition of `changelog` the offset before which this worker's
        copy has applied all committed records. It must pass markers of transactions, as the
        position of a consumer does, and go back when the copy is read again.
        """
        super().__init__(**kwargs)
        self._settings, self._source_status, self._applied = settings, source_status, applied
        #: Agent -> the topic that it reads, in the order of the flow.
        self._sources = {
            "by_user": topics.orders.name, "baskets": topics.purchase_changes.name, "similar": topics.co_purchases.name,
        }  # fmt: skip
        self._topics = (*self._sources.values(), changelog)
        self._partitions = [tp for topic in self._topics for tp in partitions_of(topic, settings.partitions)]
        self._barriers = Barriers()
        #: Group -> those of the three agents that its processes run or ran.
        self._groups: dict[str, list[str]] = {}
        self._groups_read_at = float("-inf")
        #: Group -> the broker that stores its offsets.
        self._coordinators: dict[str, int] = {}
        self._pause_s = MIN_PAUSE_S
        self._is_failing = False
        #: The last result of `as_of`, and the status and offsets that it was computed from.
        self._as_of: int | None = None
        self._as_of_basis: tuple[object, Offsets | None] = (None, None)
        #: The number of observations since the start.
        self.observations = 0

    def as_of(self) -> int | None:
        """Return the time until which the lists contain all orders; None if it is unknown.

        It is in microseconds since 1970.
        """
        contained = self._barriers.contained(self._applied())
        newest = self._source_status.newest
        status, offsets = self._as_of_basis
        # Both objects are never modified, only replaced.
        if status is not newest or offsets is not contained:
            self._as_of_basis = (newest, contained)
            self._as_of = None if contained is None else self._oldest(contained)
        return self._as_of

    def freshness(self) -> Freshness:
        """Return the freshness of the lists."""
        as_of = self.as_of()
        lag_ms = None if as_of is None else max(0, time.time_ns() // 1000 - as_of) // 1000
        # All but `as_of` and `lag_ms` is the same for every partition and position.
        return self._source_status.freshness(0, ANY_POSITION)._replace(as_of=as_of, lag_ms=lag_ms)

    def _oldest(self, offsets: Offsets) -> int | None:
        times = [self._source_status.freshness(partition, offset).as_of for partition, offset in offsets.items()]
        known = [as_of for as_of in times if as_of is not None]
        return min(known) if len(known) == len(times) else None

    # -- observations

    @Service.task
    async def _observe_until_stopped(self) -> None:
        while self._settings.similar and not self.should_stop:
            try:
                await self._observe_continuously()
            except Exception as exc:  # the worker goes on, and `as_of` does not advance
                if not self._is_failing:
                    self.log.warning("it is unknown how fresh the lists of products are (%r); trying again", exc)
                self._is_failing = True
                await self.sleep(RETRY_AFTER_S)

    async def _observe_continuously(self) -> None:
        self._groups, self._coordinators = {}, {}
        contained: Offsets | None = None
        async with admin_client(self._settings) as admin, open_consumer(self._settings, **CONSUMER_OPTIONS) as consumer:
            while not self.should_stop:
                await self._observe(admin, consumer)
                self._is_failing = False
                before, contained = contained, self._barriers.contained(self._applied())
                has_advanced = contained is not before
                self._pause_s = MIN_PAUSE_S if has_advanced else min(MAX_PAUSE_S, self._pause_s * PAUSE_FACTOR)
                await self._pause()

    async def _observe(self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
        """Read the positions, then the ends, and move the barriers on."""
        await self._find_groups(admin)
        committed = await self._read_committed(admin)
        positions = [_of_topic(committed, topic) for topic in self._sources.values()]
        positions.append(dict(self._applied()))
        ends = await consumer.end_offsets(self._partitions)
        self._barriers.observe(positions, [_of_topic(ends, topic) for topic in self._topics])
        self.observations += 1

    async def _find_groups(self, admin: AIOKafkaAdminClient) -> None:
        is_complete = set().union(*self._groups.values()) == set(self._sources)
        if is_complete and time.monotonic() < self._groups_read_at + GROUPS_EVERY_S:
            return
        names = await groups.list_app_groups(admin, self._settings)
        running = {name: groups.agents_of_group(name, self._sources) for name in names}
        agents = {name: [agent for agent in self._sources if agent in running[name]] for name in names}
        self._groups = {name: readers for name, readers in agents.items() if readers}
        self._groups_read_at = time.monotonic()

    async def _read_committed(self, admin: AIOKafkaAdminClient) -> dict[TopicPartition, int]:
        """Return the highest offset that any group has committed in each partition."""
        highest = {tp: 0 for tp in self._partitions if tp.topic in self._sources.values()}
        for group, agents in self._groups.items():
            if group not in self._coordinators:
                self._coordinators[group] = await admin.find_coordinator(group)
            topics = {self._sources[agent] for agent in agents}
            partitions = [tp for tp in highest if tp.topic in topics]
            offsets = await groups.positions(admin, group, self._coordinators[group], partitions)
            highest.update({tp: max(highest[tp], offset) for tp, offset in offsets.items()})
        return highest

    async def _pause(self) -> None:
        """Pause until the next observation.

        A status of the source that reports new orders ends a long pause.
        """
        paused_s = 0.0
        while not self.should_stop:
            is_current = self._is_current()
            if is_current:
                self._pause_s = MIN_PAUSE_S
            if paused_s >= (IDLE_PAUSE_S if is_current else self._pause_s):
                return
            await self.sleep(STEP_S)
            paused_s += STEP_S

    def _is_current(self) -> bool:
        newest = self._source_status.newest
        return newest is not None and newest.as_of is not None and self.as_of() == newest.as_of


def _of_topic(offsets: Mapping[TopicPartition, int], topic: str) -> Offsets:
    return {tp.partition: offset for tp, offset in offsets.items() if tp.topic == topic}
