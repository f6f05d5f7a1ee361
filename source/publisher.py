"""Publisher of events: it sends whole batches and waits until Kafka has acknowledged them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer

from app.control import source_state, state_topic
from app.kafka.produce import Message, durable_producer, send_batches
from app.settings import Settings
from app.topics import Topics
from domain.partitioning import partition_of
from source.events import OutgoingRecord


class Publisher:
    """Sends records in order and waits for acknowledgements; keeps each partition's end offset."""

    def __init__(self, producer: AIOKafkaProducer, topics: Topics, settings: Settings) -> None:
        self._producer, self._topics, self._settings = producer, topics, settings
        #: Partition of `orders` -> the offset after the last event of this publisher that Kafka has
        #: acknowledged.
        self.offsets: dict[int, int] = {}

    async def publish(self, records: Iterable[OutgoingRecord]) -> None:
        """Send `records`, ordered within each partition, and wait for all acknowledgements.

        Raises KafkaError; then Kafka may have stored some of them.
        """
        batches = []
        for (topic, partition), partition_records in self._group_by_partition(records).items():
            messages: Iterable[Message] = (
                {"timestamp": None, "key": record.key, "value": record.value, "headers": record.headers}
                for record in partition_records
            )
            sent_batches = await send_batches(self._producer, topic, partition, messages)
            batches += [(future, topic, partition, count) for future, count in sent_batches]
        await asyncio.gather(*(future for future, *_ in batches))
        for future, topic, partition, count in batches:
            if topic == self._topics.orders.name:
                self.offsets[partition] = future.result().offset + count

    async def write_states(self, *states: source_state.State) -> None:
        """Write `states` to the topic source-state, and wait for the acknowledgement.

        Raises KafkaError.
        """
        await state_topic.write(self._producer, self._settings, *states)

    def _group_by_partition(self, records: Iterable[OutgoingRecord]) -> dict[tuple[str, int], list[OutgoingRecord]]:
        groups: dict[tuple[str, int], list[OutgoingRecord]] = {}
        for record in records:
            partition = partition_of(record.key or b"", self._settings.partitions)
            groups.setdefault((record.topic, partition), []).append(record)
        return groups


@asynccontextmanager
async def open_publisher(settings: Settings, topics: Topics) -> AsyncIterator[Publisher]:
    """Open a publisher with an idempotent producer that waits for all replicas.

    Raises KafkaError.
    """
    async with durable_producer(settings) as producer:
        yield Publisher(producer, topics, settings)
