"""Read single records of a topic by offset or by time, with as few fetched records as possible."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from app.kafka import consume
from app.settings import Settings
from chunks import position_key

#: A fetch returns complete record batches, the first one whatever its size.
FETCH_BYTES = 64 * 2**10
FETCH_RECORDS = 500
FETCH_TIMEOUT_MS = 200
#: Time limit of one read, s.
READ_TIMEOUT_S = 5


class TopicRecords:
    """Reads the committed records of topics; `fetch_count` counts them."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self.fetch_count = 0

    async def read_at(self, topic: str, partition: int, offset: int) -> ConsumerRecord | None:
        """Return the record at an offset; None if there is no record, or no longer."""
        async for record in self.read_from(topic, partition, offset, 1):
            return record if record.offset == offset else None
        return None

    async def end_offset(self, topic: str, partition: int) -> int:
        """Return the present end offset of a partition."""
        return await consume.end_offset(self._consumer, TopicPartition(topic, partition))

    async def open_transaction(self, topic: str, partition: int) -> int | None:
        """Return the first offset of the oldest open transaction in a partition; None if none is open.

        Readers of committed records see nothing from there on.
        """
        tp = TopicPartition(topic, partition)
        stable = await self.end_offset(topic, partition)
        # Only the response to a fetch contains the end with the open transactions.
        self._consumer.assign([tp])
        self._consumer.seek(tp, stable)
        await self._consumer.getmany(tp, timeout_ms=FETCH_TIMEOUT_MS, max_records=1)
        first, end = self._consumer.last_stable_offset(tp), self._consumer.highwater(tp)
        return first if first is not None and end is not None and 0 <= first < end else None

    async def offset_at_time(self, topic: str, partition: int, ms: int) -> int | None:
        """Return the offset of the first record written at `ms` (since 1970) or later.

        Return None if there is no such record.
        """
        tp = TopicPartition(topic, partition)
        first = (await self._consumer.offsets_for_times({tp: ms}))[tp]
        return None if first is None else first.offset

    async def read_from(
        self, topic: str, partition: int, offset: int, max_records: int
    ) -> AsyncIterator[ConsumerRecord]:
        """Yield at most `max_records` records from an offset to the end of the partition."""
        tp = TopicPartition(topic, partition)
        end = await self.end_offset(topic, partition)
        self._consumer.assign([tp])
        self._consumer.seek(tp, offset)
        deadline, remaining = time.monotonic() + READ_TIMEOUT_S, max_records
        while remaining > 0 and await self._consumer.position(tp) < end and time.monotonic() < deadline:
            fetched = await self._consumer.getmany(
                tp, timeout_ms=FETCH_TIMEOUT_MS, max_records=min(remaining, FETCH_RECORDS)
            )
            for record in fetched.get(tp, ()):
                self.fetch_count += 1
                remaining -= 1
                yield record


def source_position_key(topic: str) -> bytes:
    """Return the key of the changelog records that contain a table's source position."""
    return position_key(topic)


@asynccontextmanager
async def open_topic_records(settings: Settings) -> AsyncIterator[TopicRecords]:
    """Open a reader of single records. Raises ServerAway."""
    async with consume.open_consumer(settings, max_partition_fetch_bytes=FETCH_BYTES) as consumer:
        yield TopicRecords(consumer)
