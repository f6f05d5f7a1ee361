"""The way into Kafka that live changes and snapshots share: whole batches, and every record acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from app.control import source_state
from app.kafka.client import client
from app.settings import Settings
from app.topics import MAX_REQUEST_BYTES, Topics, partition_of
from source.events import Record

#: Kafka's default limit of a record batch (max.message.bytes) is 1 MiB and a few bytes.
BATCH_BYTES = 2**19

LONGEST_STOP_S = 5


class Publisher:
    """Sends records in order and waits for their acknowledgements; knows where the last one of each partition lies."""

    def __init__(self, producer: AIOKafkaProducer, settings: Settings) -> None:
        self._producer = producer
        self._topics = Topics(settings)
        self._partitions = settings.partitions
        #: Partition of `orders` -> the offset after the last acknowledged event of this publisher.
        self.offsets: dict[int, int] = {}

    async def publish(self, records: Iterable[Record]) -> None:
        """Send `records`, those of one partition in their order, and wait until Kafka has acknowledged every one.

        Raises KafkaError; some may have been stored then.
        """
        sent = []
        for (topic, partition), some in self._by_partition(records).items():
            messages = ({"timestamp": None, "key": one.key, "value": one.value, "headers": one.headers} for one in some)
            batches = await send_batches(self._producer, topic, partition, messages)
            sent += [(future, topic, partition, count) for future, count in batches]
        await asyncio.gather(*(future for future, *_ in sent))
        for future, topic, partition, count in sent:
            if topic == self._topics.orders.name:
                self.offsets[partition] = future.result().offset + count

    async def remember(self, *states: source_state.State) -> None:
        """Write `states` to the topic source-state, and wait until they are there. Raises KafkaError."""
        topic = self._topics.source_state.name
        for one in states:
            key, value = source_state.encode(one)
            await self._producer.send_and_wait(topic, value, key, partition=0)

    def _by_partition(self, records: Iterable[Record]) -> dict[tuple[str, int], list[Record]]:
        found: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            partition = partition_of(record.key or b"", self._partitions)
            found.setdefault((record.topic, partition), []).append(record)
        return found


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
async def publishing(settings: Settings) -> AsyncIterator[Publisher]:
    """A publisher with an idempotent producer that waits for all replicas; closed at the end."""
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
        yield Publisher(producer, settings)
    finally:
        # It waits for batches in flight; while Kafka is away it would do so for ever.
        with suppress(asyncio.TimeoutError, KafkaError):
            await asyncio.wait_for(producer.stop(), LONGEST_STOP_S)
