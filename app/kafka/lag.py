"""Lag of an app's workers, computed from the offsets in Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from app.kafka import groups
from app.kafka.admin import admin_client
from app.kafka.consume import open_consumer, partitions_of
from app.settings import Settings
from app.topics import Topics

#: Small fetches are enough: the first record of a partition answers the question.
FETCH_BYTES = 64 * 2**10
FETCH_TIMEOUT_MS = 200

#: Partition -> an offset: the next one to read, or the end offset.
Offsets = dict[TopicPartition, int]


class LagReader:
    """Reads how many offsets the workers of one app have still to read."""

    def __init__(self, settings: Settings, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
        self._settings, self._admin, self._consumer = settings, admin, consumer

    async def list_workers(self) -> list[str]:
        """Return the workers of all groups of the app."""
        workers = (await groups.workers_by_group(self._admin, self._settings)).values()
        return [worker for group in workers for worker in group]

    async def end_offsets(self) -> Offsets:
        """Return the present end offsets of all topics that feed a table."""
        topics = set(Topics(self._settings).source_topics.values())
        tps = [tp for topic in topics for tp in partitions_of(topic, self._settings.partitions)]
        offsets: Offsets = await self._consumer.end_offsets(tps)
        return offsets

    async def count_unread(self, ends: Offsets | None = None) -> int:
        """Count the unread offsets up to `ends`, by default the present ends.

        The result is 0 only if none of these offsets is a record.
        """
        if ends is None:
            ends = await self.end_offsets()
        # The agents of a group without workers may now run in other groups.
        workers = await groups.workers_by_group(self._admin, self._settings)
        active = [name for name, members in workers.items() if members]
        committed = [await groups.committed_offsets(self._admin, name) for name in active]
        unread: Offsets = {}
        for tp, end in ends.items():
            position = min((max(0, offsets[tp].offset) for offsets in committed if tp in offsets), default=0)
            if position < end:
                unread[tp] = position
        return sum([ends[tp] - unread[tp] for tp in await self._partitions_with_records(unread, ends)])

    async def _partitions_with_records(self, unread: Offsets, ends: Offsets) -> set[TopicPartition]:
        # The remaining offsets may be markers of transactions, which workers do not commit.
        self._consumer.assign(list(unread))
        for tp, position in unread.items():
            self._consumer.seek(tp, position)
        non_empty: set[TopicPartition] = set()
        while pending := [tp for tp in unread.keys() - non_empty if await self._consumer.position(tp) < ends[tp]]:
            fetched = await self._consumer.getmany(*pending, timeout_ms=FETCH_TIMEOUT_MS)
            non_empty |= {tp for tp, records in fetched.items() if records and records[0].offset < ends[tp]}
        return non_empty


@asynccontextmanager
async def open_lag_reader(settings: Settings) -> AsyncIterator[LagReader]:
    """Open a reader of the lag of this app's workers. Raises ServerAway."""
    consumer = open_consumer(settings, max_partition_fetch_bytes=FETCH_BYTES)
    async with admin_client(settings) as admin, consumer as reader:
        yield LagReader(settings, admin, reader)
