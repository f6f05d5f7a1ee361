"""Producers whose records all replicas acknowledge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypedDict

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from app.kafka.client import client_options
from app.settings import Settings
from app.topics import MAX_REQUEST_BYTES

#: Below Kafka's default limit of a record batch (max.message.bytes, 1 MiB and a few bytes).
MAX_BATCH_BYTES = 2**19

STOP_TIMEOUT_S = 5


class Message(TypedDict):
    """A record to send, as `BatchBuilder.append` takes it.

    `timestamp` in ms since 1970, None means now.
    """

    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


async def send_batches(
    producer: AIOKafkaProducer, topic: str, partition: int, messages: Iterable[Message]
) -> list[tuple[asyncio.Future[RecordMetadata], int]]:
    """Send messages in as few batches as possible.

    Return the future and the number of records of each batch.
    """
    batches: list[tuple[asyncio.Future[RecordMetadata], int]] = []
    batch = producer.create_batch()

    async def send() -> None:
        count = batch.record_count()
        batches.append((await producer.send_batch(batch, topic, partition=partition), count))

    for message in messages:
        if batch.append(**message) is None:
            await send()
            batch = producer.create_batch()
            # An empty batch accepts a record of any size.
            batch.append(**message)
    await send()
    return batches


@asynccontextmanager
async def durable_producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """Open an idempotent producer that waits for all replicas. Raises KafkaError."""
    producer = AIOKafkaProducer(
        **client_options(settings),
        client_id=f"{settings.id}-source",
        acks="all",
        enable_idempotence=True,
        request_timeout_ms=30_000,
        max_batch_size=MAX_BATCH_BYTES,
        max_request_size=MAX_REQUEST_BYTES,
    )
    try:
        await producer.start()
        yield producer
    finally:
        # The stop waits for batches in flight, without end while Kafka is away.
        with suppress(asyncio.TimeoutError, KafkaError):
            await asyncio.wait_for(producer.stop(), STOP_TIMEOUT_S)
