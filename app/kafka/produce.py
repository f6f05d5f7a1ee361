"""Producers whose records all replicas acknowledge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypedDict

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import RecordMetadata

from app.errors import RecordTooLarge
from app.kafka.client import client_options
from app.settings import Settings
from app.topics import DEAD, MAX_REQUEST_BYTES

log = logging.getLogger(__name__)

#: What every topic accepts that Lately has created.
MAX_MESSAGE_BYTES = DEAD["max.message.bytes"]

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
    producer: AIOKafkaProducer, topic: str, partition: int, messages: Iterable[Message], max_records: int | None = None
) -> list[tuple[asyncio.Future[RecordMetadata], int]]:
    """Send messages in as few batches as possible, each of at most `max_records` records.

    Return the future and the number of records of each batch.
    """
    batches: list[tuple[asyncio.Future[RecordMetadata], int]] = []
    batch = producer.create_batch()

    async def send() -> None:
        count = batch.record_count()
        batches.append((await producer.send_batch(batch, topic, partition=partition), count))

    for message in messages:
        if batch.record_count() == max_records or batch.append(**message) is None:
            await send()
            batch = producer.create_batch()
            # An empty batch accepts a record of any size.
            batch.append(**message)
    await send()
    return batches


async def send_in_order(producer: AIOKafkaProducer, topic: str, partition: int, messages: Sequence[Message]) -> int:
    """Send messages, and wait until Kafka has stored all; return the offset after the last one.

    A topic may accept smaller batches than this producer sends (`max.message.bytes`). A refused batch
    is sent again in halves, together with the batches after it, so that the order is right at the
    end: some records may be stored twice. Raises KafkaError, RecordTooLarge.
    """
    remaining, end, max_records = list(messages), 0, None
    while remaining:
        batches = await send_batches(producer, topic, partition, remaining, max_records)
        results = await asyncio.gather(*(future for future, _ in batches), return_exceptions=True)
        for (_, count), result in zip(batches, results, strict=True):
            if isinstance(result, MessageSizeTooLargeError):
                if count == 1:
                    raise too_large(topic, remaining[0])
                max_records = (count + 1) // 2
                log.warning(
                    "%s refuses a batch of %d records, because its max.message.bytes is too low: sending batches of %d",
                    topic, count, max_records,
                )  # fmt: skip
                break
            if isinstance(result, BaseException):
                raise result
            remaining, end = remaining[count:], result.offset + count
    return end


def too_large(topic: str, message: Message) -> RecordTooLarge:
    """Return the error for a record that a topic refuses because of its size."""
    size = len(message["key"] or b"") + len(message["value"] or b"")
    return RecordTooLarge(
        f"topic {topic} refuses a record of {size} bytes, because its max.message.bytes is too low: "
        f"set it with kafka-configs.sh --alter --entity-type topics --entity-name {topic} "
        f"--add-config max.message.bytes={MAX_MESSAGE_BYTES}"
    )


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
