"""Kafka as commands reach it: patience with a broker, words for one that does not answer, and reading topics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from app.config import Settings
from app.errors import ServerAway
from chunks.fetch import FETCH_WAIT_MS

#: How long a client may need to start, s.
PATIENCE_S = 15
#: Between two tries, ms. aiokafka's first request for the offsets of a topic always fails: it has not heard of it yet.
RETRY_MS = 5


@asynccontextmanager
async def reachable(settings: Settings) -> AsyncIterator[None]:
    """Say it in words when Kafka does not answer. Raises ServerAway."""
    try:
        yield
    except (KafkaError, asyncio.TimeoutError, OSError) as exc:
        raise ServerAway(
            f"no answer from Kafka at {settings.kafka} ({exc or type(exc).__name__}): "
            "start it, or set LATELY_KAFKA to the servers to use"
        ) from None


@asynccontextmanager
async def consuming(settings: Settings, **more: object) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of no group, which begins where a topic begins; `more` is what else it is told. Raises ServerAway.

    What is not committed yet it does not read: nobody knows what it will be.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_servers, enable_auto_commit=False, auto_offset_reset="earliest",
        isolation_level="read_committed", fetch_max_wait_ms=FETCH_WAIT_MS, retry_backoff_ms=RETRY_MS, **more,
    )  # fmt: skip
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
