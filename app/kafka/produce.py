"""Producers whose records are acknowledged by all replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from app.kafka.client import client
from app.settings import Settings
from app.topics import MAX_REQUEST_BYTES

#: Kafka's default limit of a record batch (max.message.bytes) is 1 MiB and a few bytes.
BATCH_BYTES = 2**19

LONGEST_STOP_S = 5


async def send_batches(
    producer: AIOKafkaProducer, topic: str, partition: int, messages: Iterable[Mapping[str, Any]]
) -> list[tuple[asyncio.Future, int]]:
    """Send messages (timestamp, key, value, headers) in as few batches as possible; of each its future and its size."""
    sent, batch = [], producer.create_batch()

    async def send() -> None:
        count = batch.record_count()
        sent.append((await producer.send_batch(batch, topic, partition=partition), count))

    for message in messages:
        if batch.append(**message) is None:
            await send()
            batch = producer.create_batch()
            # An empty batch takes a record of any size.
            batch.append(**message)
    await send()
    return sent


@asynccontextmanager
async def durable_producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """An idempotent producer that waits for all replicas; closed at the end. Raises KafkaError."""
    producer = AIOKafkaProducer(
        **client(settings),
        client_id=f"{settings.id}-source",
        acks="all",
        enable_idempotence=True,
        request_timeout_ms=30_000,
        max_batch_size=BATCH_BYTES,
        max_request_size=MAX_REQUEST_BYTES,
    )
    try:
        await producer.start()
        yield producer
    finally:
        # It waits for batches in flight; while Kafka is away it would do so for ever.
        with suppress(asyncio.TimeoutError, KafkaError):
            await asyncio.wait_for(producer.stop(), LONGEST_STOP_S)
