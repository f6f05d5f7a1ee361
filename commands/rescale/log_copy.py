"""Copies `orders` to the topics of another generation, exactly once, while new events arrive.

Events and progress are one transaction, so a copy continues after a kill without repeats. Events keep key, value,
headers and timestamp; the events of a new partition are in the order of their timestamps, if the old ones were.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced
from aiokafka.structs import ConsumerRecord, RecordMetadata

from app.control import state_topic
from app.control.source_state import CopyProgress
from app.errors import StillRunning
from app.kafka import dead_letter_topic
from app.kafka.client import client_options, explain_errors
from app.kafka.consume import START_TIMEOUT_S, open_consumer, partitions_of
from app.kafka.produce import Message, send_batches
from app.kafka.topic_metadata import count_partitions
from app.settings import Settings
from app.topics import MAX_REQUEST_BYTES, Topics
from chunks import BATCH_BYTES, TRANSACTION_TIMEOUT_MS
from domain.dead_letters import HEADER_PREFIX
from domain.errors import UnreadableEvent
from domain.events import read_event
from domain.partitioning import partition_of

#: Events of one transaction.
BATCH_EVENTS = 5_000


class LogCopy:
    """Copies the events of one generation to another one."""

    def __init__(
        self, old: Settings, new: Settings, consumer: AIOKafkaConsumer, end_consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer, progress: CopyProgress,
    ) -> None:  # fmt: skip
        self._old, self._new, self._producer = old, new, producer
        self._consumer, self._end_consumer = consumer, end_consumer
        self._source, self._target = Topics(old), Topics(new)
        self.progress = progress

    async def catch_up(
        self, progress: Callable[[int, int], None] = lambda done, total: None, include_unreadable: bool = False
    ) -> None:
        """Copy up to the current high watermark; unreadable records are dead letters already.

        If a transaction is open, its end is awaited, so no later record is skipped.
        """
        tps = await partitions_to_copy(self._consumer, self._source)
        starts = await self._end_consumer.beginning_offsets(tps)
        ends = await self._end_consumer.end_offsets(tps)
        self._consumer.assign(tps)
        for tp in tps:
            self._consumer.seek(tp, max(starts[tp], self.progress.offsets.get(tp.partition, 0)))
        batch: list[ConsumerRecord] = []
        total = sum(ends.values())
        async for record in merge_by_time(self._consumer, ends):
            batch.append(record)
            if len(batch) == BATCH_EVENTS:
                await self._write(batch, include_unreadable)
                batch = []
                progress(sum(self.progress.offsets.values()), total)
        if batch:
            await self._write(batch, include_unreadable)

    async def copy_dead_letters(self) -> None:
        """Copy the open dead letters once; a retry will use the new partition of the key."""
        if self.progress.has_dead_letters:
            return
        letters = await dead_letter_topic.find_records(self._old, lambda letter: True)
        async with self._transaction():
            for letter in letters:
                topic, headers = self._target.orders_dead.name, self._headers(letter)
                await self._producer.send(topic, letter.value, letter.key, self._partition(letter.key), headers=headers)
            await self._write_progress(msgspec.structs.replace(self.progress, has_dead_letters=True))

    def _headers(self, letter: ConsumerRecord) -> list[tuple[str, bytes]]:
        headers = dict(letter.headers)
        if headers.get(f"{HEADER_PREFIX}topic") == self._source.orders.name.encode():
            headers[f"{HEADER_PREFIX}topic"] = self._target.orders.name.encode()
            headers[f"{HEADER_PREFIX}partition"] = b"%d" % self._partition(letter.key)
            # The unreadable record was not copied, so it has no offset there.
            headers.pop(f"{HEADER_PREFIX}offset", None)
        return list(headers.items())

    async def _write(self, records: list[ConsumerRecord], include_unreadable: bool) -> None:
        offsets = self.progress.offsets | {record.partition: record.offset + 1 for record in records}
        copied = [record for record in records if include_unreadable or _is_readable(record)]
        async with self._transaction():
            batches: dict[int, list[ConsumerRecord]] = {}
            for record in copied:
                batches.setdefault(self._partition(record.key), []).append(record)
            sent = [await self._send(partition, batch) for partition, batch in batches.items()]
            await asyncio.gather(*(future for futures in sent for future, _ in futures))
            events = self.progress.events + len(copied)
            await self._write_progress(msgspec.structs.replace(self.progress, offsets=offsets, events=events))

    async def _send(
        self, partition: int, records: Iterable[ConsumerRecord]
    ) -> list[tuple[asyncio.Future[RecordMetadata], int]]:
        messages: Iterable[Message] = (
            {
                "timestamp": record.timestamp,
                "key": record.key,
                "value": record.value,
                "headers": list(record.headers),
            }
            for record in records
        )
        return await send_batches(self._producer, self._target.orders.name, partition, messages)

    async def _write_progress(self, progress: CopyProgress) -> None:
        await state_topic.write(self._producer, self._new, progress)
        self.progress = progress

    def _partition(self, key: bytes | None) -> int:
        return partition_of(key or b"", self._new.partitions)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        before = self.progress
        try:
            async with self._producer.transaction():
                yield
        except BaseException as exc:
            self.progress = before
            if isinstance(exc, ProducerFenced | InvalidProducerEpoch):
                raise StillRunning("another `lately rescale` has started and continues this one") from None
            raise


async def partitions_to_copy(consumer: AIOKafkaConsumer, source: Topics) -> list[TopicPartition]:
    """Return all partitions of `orders`: a topic that somebody has altered has more than the tables."""
    orders = source.orders.name
    return partitions_of(orders, (await count_partitions(consumer, [orders]))[orders])


def _is_readable(record: ConsumerRecord) -> bool:
    try:
        read_event(record.key, record.value)
    except UnreadableEvent:
        return False
    return True


async def merge_by_time(
    consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]
) -> AsyncIterator[ConsumerRecord]:
    """Read the assigned partitions up to `ends`, merged by timestamp; each partition keeps its order."""
    queues: dict[TopicPartition, deque[ConsumerRecord]] = {tp: deque() for tp in ends}
    while True:
        empty = [tp for tp, queue in queues.items() if not queue and await consumer.position(tp) < ends[tp]]
        if empty:
            for tp, records in (await consumer.getmany(*empty, timeout_ms=500)).items():
                queues[tp].extend(record for record in records if record.offset < ends[tp])
            continue
        heads = [(queue[0].timestamp, tp.partition, queue) for tp, queue in queues.items() if queue]
        if not heads:
            return
        heapq.heapify(heads)
        while True:
            _, partition, queue = heads[0]
            yield queue.popleft()
            if not queue:
                break
            heapq.heapreplace(heads, (queue[0].timestamp, partition, queue))


@asynccontextmanager
async def open_log_copy(old: Settings, new: Settings) -> AsyncIterator[LogCopy]:
    """Open the copy at its progress, and fence any other copy. Raises ServerAway, StillRunning."""
    producer = AIOKafkaProducer(
        **client_options(old),
        transactional_id=f"{new.prefix}rescale",
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        max_batch_size=BATCH_BYTES,
        max_request_size=MAX_REQUEST_BYTES,
    )
    uncommitted = open_consumer(old, isolation_level="read_uncommitted")
    async with explain_errors(old), open_consumer(old) as consumer, uncommitted as end_consumer:
        try:
            await asyncio.wait_for(producer.start(), START_TIMEOUT_S)
            states = await state_topic.read(new)
            progress = states.copy_progress or CopyProgress()
            yield LogCopy(old, new, consumer, end_consumer, producer, progress)
        finally:
            await asyncio.shield(producer.stop())
