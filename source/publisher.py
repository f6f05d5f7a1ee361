"""Publisher of events: it sends whole batches and waits until Kafka has acknowledged them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer

from app.control import source_state, state_topic
from app.kafka.produce import Message, durable_producer, send_in_order
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

        Raises KafkaError, RecordTooLarge; then Kafka may have stored some of them.
        """
        groups = self._group_by_partition(records)
        # All partitions are sent to their ends: after an error, nothing is on its way any more.
        ends = await asyncio.gather(
            *(
                send_in_order(self._producer, topic, partition, [_to_message(record) for record in partition_records])
                for (topic, partition), partition_records in groups.items()
            ),
            return_exceptions=True,
        )
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        for (topic, partition), end in zip(groups, ends, strict=True):
            if topic == self._topics.orders.name and isinstance(end, int):
                self.offsets[partition] = end

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


def _to_message(record: OutgoingRecord) -> Message:
    return {"timestamp": None, "key": record.key, "value": record.value, "headers": record.headers}


@asynccontextmanager
async def open_publisher(settings: Settings, topics: Topics) -> AsyncIterator[Publisher]:
    """Open a publisher with an idempotent producer that waits for all replicas.

    Raises KafkaError.
    """
    async with durable_producer(settings) as producer:
        yield Publisher(producer, topics, settings)
