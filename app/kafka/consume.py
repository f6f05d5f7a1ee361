"""Kafka as commands read it: patience with a broker, a consumer of no group, and reading up to an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from app.kafka.client import client, reachable
from app.settings import Settings
from chunks.fetch import FETCH_WAIT_MS

#: How long a client may need to start, s.
PATIENCE_S = 15
#: Between two tries, ms. aiokafka's first request for the offsets of a topic always fails: it has not heard of it yet.
RETRY_MS = 5


@asynccontextmanager
async def consuming(settings: Settings, **more: object) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of no group, which begins where a topic begins; `more` is what else it is told. Raises ServerAway.

    What is not committed yet it does not read, unless it is told to: nobody knows what it will be.
    """
    told = {
        "enable_auto_commit": False, "auto_offset_reset": "earliest", "isolation_level": "read_committed",
        "fetch_max_wait_ms": FETCH_WAIT_MS, "retry_backoff_ms": RETRY_MS, **more,
    }  # fmt: skip
    consumer = AIOKafkaConsumer(**client(settings), **told)
    async with reachable(settings):
        try:
            await asyncio.wait_for(consumer.start(), PATIENCE_S)
            yield consumer
        finally:
            await asyncio.shield(consumer.stop())


async def upto(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> AsyncIterator[ConsumerRecord]:
    """The records of assigned partitions, from where the consumer is to the offsets where they end."""
    while left := [tp for tp, end in ends.items() if await consumer.position(tp) < end]:
        for records in (await consumer.getmany(*left, timeout_ms=500)).values():
            for record in records:
                yield record
