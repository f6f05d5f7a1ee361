"""The way into Kafka that live changes and snapshots share: whole batches, and every record acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer

from app.control import source_state
from app.kafka.produce import durable_producer, send_batches
from app.settings import Settings
from app.topics import Topics
from domain.partitioning import partition_of
from source.events import Record


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
        await source_state.write(self._producer, self._topics, *states)

    def _by_partition(self, records: Iterable[Record]) -> dict[tuple[str, int], list[Record]]:
        found: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            partition = partition_of(record.key or b"", self._partitions)
            found.setdefault((record.topic, partition), []).append(record)
        return found


@asynccontextmanager
async def publishing(settings: Settings) -> AsyncIterator[Publisher]:
    """A publisher with an idempotent producer that waits for all replicas; closed at the end."""
    async with durable_producer(settings) as producer:
        yield Publisher(producer, settings)
