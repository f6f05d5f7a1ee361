"""Copying `orders` into the topics of another generation, exactly once, while it is written to.

What is copied and how far that is are one transaction, so a copy that was killed goes on without a repeat. Events keep
key, value, headers and time; in a partition they lie in the order of their times, as far as they did before.
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

from app.control import source_state
from app.control.source_state import CopyProgress
from app.errors import StillRunning
from app.kafka import dead_letter_topic
from app.kafka.client import client_options, explain_errors
from app.kafka.consume import START_TIMEOUT_S, open_consumer
from app.kafka.produce import Message, send_batches
from app.settings import Settings
from app.topics import MAX_REQUEST_BYTES, Topics
from chunks import BATCH_BYTES, TRANSACTION_TIMEOUT_MS
from domain.dead_letters import HEADER_PREFIX
from domain.errors import UnreadableEvent
from domain.events import read_event
from domain.partitioning import partition_of

#: Events of one transaction.
AT_ONCE = 5_000


class LogCopy:
    """The copy of one generation's events in another one."""

    def __init__(
        self, old: Settings, new: Settings, consumer: AIOKafkaConsumer, heads: AIOKafkaConsumer,
        producer: AIOKafkaProducer, copied: CopyProgress,
    ) -> None:  # fmt: skip
        self._old, self._new, self._consumer, self._heads, self._producer = old, new, consumer, heads, producer
        self._source, self._target = Topics(old), Topics(new)
        self.copied = copied

    async def catch_up(
        self, progress: Callable[[int, int], None] = lambda done, total: None, unreadable: bool = False
    ) -> None:
        """Copy what there is as of now. What cannot be read is a dead letter already; it is copied if that is said.

        That goes up to the high watermark: where a transaction is open, its end is awaited, and what lies behind it is
        not passed over.
        """
        tps = [TopicPartition(self._source.orders.name, number) for number in range(self._old.partitions)]
        firsts, ends = await self._heads.beginning_offsets(tps), await self._heads.end_offsets(tps)
        self._consumer.assign(tps)
        for tp in tps:
            self._consumer.seek(tp, max(firsts[tp], self.copied.offsets.get(tp.partition, 0)))
        waiting: list[ConsumerRecord] = []
        total = sum(ends.values())
        async for record in in_order(self._consumer, ends):
            waiting.append(record)
            if len(waiting) == AT_ONCE:
                await self._write(waiting, unreadable)
                waiting = []
                progress(sum(self.copied.offsets.values()), total)
        if waiting:
            await self._write(waiting, unreadable)

    async def copy_letters(self) -> None:
        """Copy the open dead letters, once: each as it was, and to be retried into the partition of its key now."""
        if self.copied.has_dead_letters:
            return
        letters = await dead_letter_topic.find_records(self._old, lambda letter: True)
        async with self._transaction():
            for one in letters:
                topic, headers = self._target.orders_dead.name, self._headers(one)
                await self._producer.send(topic, one.value, one.key, self._partition(one.key), headers=headers)
            await self._remember(msgspec.structs.replace(self.copied, has_dead_letters=True))

    def _headers(self, letter: ConsumerRecord) -> list[tuple[str, bytes]]:
        said = dict(letter.headers)
        if said.get(f"{HEADER_PREFIX}topic") == self._source.orders.name.encode():
            said[f"{HEADER_PREFIX}topic"] = self._target.orders.name.encode()
            said[f"{HEADER_PREFIX}partition"] = b"%d" % self._partition(letter.key)
            # It was not copied, so it has no place there.
            said.pop(f"{HEADER_PREFIX}offset", None)
        return list(said.items())

    async def _write(self, records: list[ConsumerRecord], unreadable: bool) -> None:
        offsets = self.copied.offsets | {one.partition: one.offset + 1 for one in records}
        chosen = [one for one in records if unreadable or _readable(one)]
        async with self._transaction():
            batches: dict[int, list[ConsumerRecord]] = {}
            for one in chosen:
                batches.setdefault(self._partition(one.key), []).append(one)
            sent = [await self._send(number, some) for number, some in batches.items()]
            await asyncio.gather(*(future for futures in sent for future, _ in futures))
            events = self.copied.events + len(chosen)
            await self._remember(msgspec.structs.replace(self.copied, offsets=offsets, events=events))

    async def _send(
        self, number: int, records: Iterable[ConsumerRecord]
    ) -> list[tuple[asyncio.Future[RecordMetadata], int]]:
        messages: Iterable[Message] = (
            {"timestamp": one.timestamp, "key": one.key, "value": one.value, "headers": list(one.headers)}
            for one in records
        )
        return await send_batches(self._producer, self._target.orders.name, number, messages)

    async def _remember(self, copied: CopyProgress) -> None:
        key, value = source_state.encode(copied)
        await self._producer.send_and_wait(self._target.source_state.name, value, key, partition=0)
        self.copied = copied

    def _partition(self, key: bytes | None) -> int:
        return partition_of(key or b"", self._new.partitions)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        before = self.copied
        try:
            async with self._producer.transaction():
                yield
        except BaseException as exc:
            self.copied = before
            if isinstance(exc, ProducerFenced | InvalidProducerEpoch):
                raise StillRunning("another `lately rescale` has begun meanwhile, and goes on with this one") from None
            raise


def _readable(record: ConsumerRecord) -> bool:
    try:
        read_event(record.key, record.value)
    except UnreadableEvent:
        return False
    return True


async def in_order(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> AsyncIterator[ConsumerRecord]:
    """The records of assigned partitions up to `ends`: those of a partition in their order, all by their times."""
    waiting: dict[TopicPartition, deque[ConsumerRecord]] = {tp: deque() for tp in ends}
    while True:
        empty = [tp for tp, queue in waiting.items() if not queue and await consumer.position(tp) < ends[tp]]
        if empty:
            for tp, records in (await consumer.getmany(*empty, timeout_ms=500)).items():
                waiting[tp].extend(one for one in records if one.offset < ends[tp])
            continue
        heads = [(queue[0].timestamp, tp.partition, queue) for tp, queue in waiting.items() if queue]
        if not heads:
            return
        heapq.heapify(heads)
        while True:
            _, number, queue = heads[0]
            yield queue.popleft()
            if not queue:
                break
            heapq.heapreplace(heads, (queue[0].timestamp, number, queue))


@asynccontextmanager
async def copying(old: Settings, new: Settings) -> AsyncIterator[LogCopy]:
    """The copy, from where it is; whoever else was at it can commit nothing more. Raises ServerAway, StillRunning."""
    producer = AIOKafkaProducer(
        **client_options(old),
        transactional_id=f"{new.prefix}rescale",
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        max_batch_size=BATCH_BYTES,
        max_request_size=MAX_REQUEST_BYTES,
    )
    uncommitted = open_consumer(old, isolation_level="read_uncommitted")
    async with explain_errors(old), open_consumer(old) as consumer, uncommitted as heads:
        try:
            await asyncio.wait_for(producer.start(), START_TIMEOUT_S)
            known = await source_state.read(new)
            yield LogCopy(old, new, consumer, heads, producer, known.copy_progress or CopyProgress())
        finally:
            await asyncio.shield(producer.stop())
