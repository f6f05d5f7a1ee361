"""Read topics without a consumer group: open a consumer, read partitions up to offsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from app.kafka.client import client_options, explain_errors
from app.settings import Settings
from chunks import FETCH_MAX_WAIT_MS, RecordRange, read_tolerantly

#: Timeout for the start of a client, s.
START_TIMEOUT_S = 15
#: Pause between two attempts of a request, ms. aiokafka's first request for the offsets of a topic
#: always fails, because its metadata does not contain the topic yet.
RETRY_BACKOFF_MS = 5
#: Options of a consumer that stays open: few requests matter more than the latency of the first
#: records.
LONG_LIVED: dict[str, object] = {"fetch_max_wait_ms": 500, "retry_backoff_ms": 100}
#: Timeouts of one fetch: the loops below check their ends after it.
FETCH_TIMEOUT_MS = 500
RANGE_TIMEOUT_S = 1.0


@asynccontextmanager
async def open_consumer(settings: Settings, **options: object) -> AsyncIterator[AIOKafkaConsumer]:
    """Open a consumer without a group that begins at the earliest offset; assign partitions to it.

    It reads only committed records, because an open transaction may still be aborted, and skips
    unreadable records with a log line. `options` of AIOKafkaConsumer override these defaults. Raises
    ServerAway, Refused.
    """
    read_tolerantly()
    defaults: dict[str, object] = {
        "enable_auto_commit": False, "auto_offset_reset": "earliest", "isolation_level": "read_committed",
        "fetch_max_wait_ms": FETCH_MAX_WAIT_MS, "retry_backoff_ms": RETRY_BACKOFF_MS,
    }  # fmt: skip
    consumer = AIOKafkaConsumer(**client_options(settings), **(defaults | options))
    async with explain_errors(settings):
        try:
            await asyncio.wait_for(consumer.start(), START_TIMEOUT_S)
            yield consumer
        finally:
            await asyncio.shield(consumer.stop())


def partitions_of(topic: str, count: int) -> list[TopicPartition]:
    """Return the first `count` partitions of a topic."""
    return [TopicPartition(topic, number) for number in range(count)]


async def end_offset(consumer: AIOKafkaConsumer, tp: TopicPartition) -> int:
    """Return the end offset of a partition.

    With read_committed: the offset before the first open transaction.
    """
    ends: dict[TopicPartition, int] = await consumer.end_offsets([tp])
    return ends[tp]


async def read_until(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> AsyncIterator[ConsumerRecord]:
    """Yield the records of assigned partitions from the consumer's positions up to `ends`.

    The last fetch may contain records behind the end. They are yielded too, because the consumer's
    position is already behind them: a caller that goes on later would miss them.
    """
    while pending := [tp for tp, end in ends.items() if await consumer.position(tp) < end]:
        fetched = await consumer.getmany(*pending, timeout_ms=FETCH_TIMEOUT_MS)
        for records in fetched.values():
            for record in records:
                yield record


async def read_partition(
    consumer: AIOKafkaConsumer, tp: TopicPartition, first: int, end: int
) -> AsyncIterator[ConsumerRecord]:
    """Assign one partition, and yield its records from offset `first` to before `end`."""
    if first >= end:
        return
    consumer.assign([tp])
    consumer.seek(tp, first)
    async for record in read_until(consumer, {tp: end}):
        if record.offset < end:
            yield record


async def read_ranges(
    consumer: AIOKafkaConsumer, tp: TopicPartition, first: int, end: int, max_records: int
) -> AsyncIterator[RecordRange]:
    """Assign one partition, and yield its records from offset `first` up to `end`, in ranges.

    Faster than `read_partition`: a record is a tuple (offset, key, value). A range has at most
    `max_records` records, and may be empty: then its offsets are markers of transactions.
    """
    if first >= end:
        return
    # The source and most commands read no ranges, and start faster without Faust.
    from faust.types import TP

    from chunks import fetch_ranges

    consumer.assign([tp])
    consumer.seek(tp, first)
    position = first
    while position < end:
        fetched = await fetch_ranges(consumer, {TP(*tp)}, RANGE_TIMEOUT_S, max_records)
        for fetched_range in fetched.get(TP(*tp), ()):
            if position < end:
                records = [record for record in fetched_range.records if record[0] < end]
                yield RecordRange(position, min(fetched_range.next, end), records, end)
                position = fetched_range.next
