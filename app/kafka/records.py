"""Single records of a topic, fetched by offset or by time: nothing is read that is not asked for."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from app.kafka.consume import consuming
from app.settings import Settings
from chunks.store import position_key

#: A fetch brings whole record batches, the first whatever its size.
FETCH_BYTES = 64 * 2**10
ANSWER_S = 5


class Records:
    """What is committed in the topics; `fetched` counts the records that were read."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self.fetched = 0

    async def at(self, topic: str, partition: int, offset: int) -> ConsumerRecord | None:
        """The record at an offset; None where there is none (any more)."""
        async for record in self.after(topic, partition, offset, 1):
            return record if record.offset == offset else None
        return None

    async def end(self, topic: str, partition: int) -> int:
        """The offset behind the last record."""
        tp = TopicPartition(topic, partition)
        return (await self._consumer.end_offsets([tp]))[tp]

    async def since(self, topic: str, partition: int, ms: int) -> int | None:
        """The offset of the first record that was written at `ms` or later; None: there is none."""
        tp = TopicPartition(topic, partition)
        found = (await self._consumer.offsets_for_times({tp: ms}))[tp]
        return None if found is None else found.offset

    async def after(self, topic: str, partition: int, offset: int, most: int) -> AsyncIterator[ConsumerRecord]:
        """The records from an offset on, at most so many, up to where the partition ends now."""
        tp = TopicPartition(topic, partition)
        end = await self.end(topic, partition)
        self._consumer.assign([tp])
        self._consumer.seek(tp, offset)
        until, left = time.monotonic() + ANSWER_S, most
        while left > 0 and await self._consumer.position(tp) < end and time.monotonic() < until:
            found = await self._consumer.getmany(tp, timeout_ms=200, max_records=min(left, 500))
            for record in found.get(tp, ()):
                self.fetched += 1
                left -= 1
                yield record


def source_position_key(topic: str) -> bytes:
    """Key of the changelog records that contain a table's position in its source topic."""
    return position_key(topic)


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[Records]:
    """The topics of these settings. Raises ServerAway."""
    async with consuming(settings, max_partition_fetch_bytes=FETCH_BYTES) as consumer:
        yield Records(consumer)
