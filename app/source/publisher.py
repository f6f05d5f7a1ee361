"""The way into Kafka that live changes and snapshots share: whole batches, and every record acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from app.config import Settings
from app.kafka import client
from app.source import state
from app.source.events import Record
from app.topics import MAX_REQUEST_BYTES, Topics, partition_of

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
            batch = self._producer.create_batch()
            for record in some:
                if not _append(batch, record):
                    sent.append(await self._send(batch, topic, partition))
                    batch = self._producer.create_batch()
                    # An empty batch takes a record of any size.
                    _append(batch, record)
            sent.append(await self._send(batch, topic, partition))
        await asyncio.gather(*(future for future, *_ in sent))
        for future, topic, partition, count in sent:
            if topic == self._topics.orders.name:
                self.offsets[partition] = future.result().offset + count

    async def remember(self, *states: state.State) -> None:
        """Write `states` to the topic source-state, and wait until they are there. Raises KafkaError."""
        topic = self._topics.source_state.name
        for one in states:
            key, value = state.encode(one)
            await self._producer.send_and_wait(topic, value, key, partition=0)

    def _by_partition(self, records: Iterable[Record]) -> dict[tuple[str, int], list[Record]]:
        found: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            partition = partition_of(record.key or b"", self._partitions)
            found.setdefault((record.topic, partition), []).append(record)
        return found

    async def _send(self, batch: BatchBuilder, topic: str, partition: int) -> tuple[asyncio.Future, str, int, int]:
        count = batch.record_count()
        return await self._producer.send_batch(batch, topic, partition=partition), topic, partition, count


def _append(batch: BatchBuilder, record: Record) -> bool:
    return batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers) is not None


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
