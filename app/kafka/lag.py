"""What the workers of an app have still to read, as Kafka knows it; no worker is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from app.kafka import groups
from app.kafka.admin import admin_client
from app.kafka.consume import consuming
from app.settings import Settings
from app.topics import Topics

#: It is only asked whether there is a record.
FETCH_BYTES = 64 * 2**10

#: Partition -> an offset: the next one to read, or the one behind the last record.
Ends = dict[TopicPartition, int]


class Behind:
    """How much the workers of one app have still to read."""

    def __init__(self, settings: Settings, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
        self._settings, self._admin, self._consumer = settings, admin, consumer

    async def members(self) -> list[str]:
        """Its workers, in whatever group."""
        return [one for some in (await groups.members(self._admin, self._settings)).values() for one in some]

    async def ends(self) -> Ends:
        """Where all topics that feed a table end now."""
        return await self._consumer.end_offsets([
            TopicPartition(topic, number)
            for topic in set(Topics(self._settings).feeding.values())
            for number in range(self._settings.partitions)
        ])  # fmt: skip

    async def records(self, ends: Ends | None = None) -> int:
        """Offsets that are left up to these ends, or those of now; 0 only where no record is among them."""
        if ends is None:
            ends = await self.ends()
        # Of a group without workers the agents may run in others by now.
        live = [name for name, workers in (await groups.members(self._admin, self._settings)).items() if workers]
        committed = [await groups.offsets_of(self._admin, name) for name in live]
        unread = {}
        for tp, end in ends.items():
            position = min((max(0, one[tp].offset) for one in committed if tp in one), default=0)
            if position < end:
                unread[tp] = position
        return sum([ends[tp] - unread[tp] for tp in await self._with_records(unread, ends)])

    async def _with_records(self, unread: Ends, ends: Ends) -> set[TopicPartition]:
        # What is left may be markers of transactions, which nobody commits an offset for.
        self._consumer.assign(list(unread))
        for tp, position in unread.items():
            self._consumer.seek(tp, position)
        found: set[TopicPartition] = set()
        while left := [tp for tp in unread.keys() - found if await self._consumer.position(tp) < ends[tp]]:
            records = await self._consumer.getmany(*left, timeout_ms=200)
            found |= {tp for tp, some in records.items() if some and some[0].offset < ends[tp]}
        return found


@asynccontextmanager
async def behind(settings: Settings) -> AsyncIterator[Behind]:
    """How much the workers of these settings have still to read. Raises ServerAway."""
    async with admin_client(settings) as admin, consuming(settings, max_partition_fetch_bytes=FETCH_BYTES) as consumer:
        yield Behind(settings, admin, consumer)
