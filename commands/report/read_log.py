"""Reads the events of the topic `orders` that the cache lacks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer
from faust.types import TP

from app.errors import BadReport, BadTopic, ServerAway
from app.kafka.admin import missing_topics
from app.kafka.consume import open_consumer
from app.settings import Settings
from app.topics import Topics
from chunks import RecordRange, fetch_ranges
from commands.report.cache import (
    BATCH_ROWS,
    ErasureRow,
    EventCache,
    EventRow,
    ReadPosition,
    event_row,
    record_checksum,
)
from commands.report.position import Position
from domain.errors import UnreadableEvent
from domain.events import UserErased, read_event

#: Longest time without records from Kafka; an open transaction blocks the records behind it.
MAX_SILENCE_S = 60
FETCH_RECORDS = 5_000


class OrderLogReader:
    """Reader of the topic `orders`, committed records only."""

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer) -> None:
        self._consumer, self.topic = consumer, Topics(settings).orders.name
        self._tps = [TP(self.topic, number) for number in range(settings.partitions)]

    async def end(self) -> Position:
        """Current end of the topic."""
        return {tp.partition: offset for tp, offset in (await self._consumer.end_offsets(self._tps)).items()}

    async def at(self, moment: int) -> Position:
        """Position at a moment (microseconds since 1970), by the timestamps that Kafka stores with records."""
        ends = await self.end()
        first_later = await self._consumer.offsets_for_times({tp: -(-moment // 1000) for tp in self._tps})
        return {
            tp.partition: ends[tp.partition] if first_later.get(tp) is None else first_later[tp].offset
            for tp in self._tps
        }

    async def require(self, position: Position) -> None:
        """Raise BadReport for a position beyond the end of the topic."""
        for partition, offset in (await self.end()).items():
            if position[partition] > offset:
                raise BadReport(
                    f"--as-of: {self.topic}[{partition}] ends at {offset}, so {position[partition]} is beyond its end"
                )

    async def fill(self, cache: EventCache, upto: Mapping[int, int], progress: Callable[[int, int], None]) -> None:
        """Read the missing records below `upto` into the cache; a stopped read continues later.

        Raises BadReport if the beginning of the topic was deleted, ServerAway if Kafka sends no records.
        """
        earliest = await self._consumer.beginning_offsets(self._tps)
        if await self._is_another_topic(cache, earliest):
            cache.wipe()
        positions = cache.positions()
        starts = {tp: positions[tp.partition][0] if tp.partition in positions else 0 for tp in self._tps}
        for tp, start in starts.items():
            if start < min(earliest[tp], upto[tp.partition]):
                raise _deleted_events_error(tp, earliest[tp])
        pending = {tp for tp in self._tps if starts[tp] < upto[tp.partition]}
        if not pending:
            return
        total = sum(upto[tp.partition] - starts[tp] for tp in pending)
        self._assign({tp: starts[tp] for tp in pending})
        batch, offsets = _EventBatch(cache), dict(starts)
        async for tp, record_range in self._ranges(pending):
            if record_range.first > offsets[tp]:
                raise _deleted_events_error(tp, record_range.first)
            batch.add(tp.partition, record_range)
            offsets[tp] = record_range.next
            if record_range.next >= upto[tp.partition]:
                pending.discard(tp)
            progress(min(total, sum(offsets[tp] - starts[tp] for tp in offsets)), total)
            if not pending:
                break
        batch.flush()

    def _assign(self, starts: Mapping[TP, int]) -> None:
        self._consumer.assign(sorted(starts))
        for tp, offset in starts.items():
            self._consumer.seek(tp, offset)

    async def _ranges(self, pending: set[TP]) -> AsyncIterator[tuple[TP, RecordRange]]:
        received_at = time.monotonic()
        while True:
            fetched = await fetch_ranges(self._consumer, pending, 1.0, FETCH_RECORDS)
            for tp, record_ranges in fetched.items():
                for record_range in record_ranges:
                    yield tp, record_range
            if fetched:
                received_at = time.monotonic()
            elif time.monotonic() - received_at > MAX_SILENCE_S:
                raise ServerAway(
                    f"Kafka has sent no records of {self.topic} for {MAX_SILENCE_S} s: "
                    "repeat the command; it continues from here"
                )

    async def _is_another_topic(self, cache: EventCache, earliest: Mapping[TP, int]) -> bool:
        """Return True if the topic was created again: its records differ from the last ones that the cache has read."""
        positions, ends = cache.positions(), await self.end()
        if any(following > ends[partition] for partition, (following, _, _) in positions.items()):
            return True
        last_records = {
            TP(self.topic, partition): (offset, checksum)
            for partition, (_, offset, checksum) in positions.items()
            if offset is not None and offset >= earliest[TP(self.topic, partition)]
        }
        pending = set(last_records)
        if not pending:
            return False
        self._assign({tp: offset for tp, (offset, _) in last_records.items()})
        async for tp, record_range in self._ranges(set(pending)):
            if tp not in pending or not record_range.records:
                continue
            offset, key, value = record_range.records[0]
            if (offset, record_checksum(key, value)) != last_records[tp]:
                return True
            pending.discard(tp)
            if not pending:
                break
        return False


def _deleted_events_error(tp: TP, begin: int) -> BadReport:
    return BadReport(
        f"{tp.topic}[{tp.partition}] begins at {begin}: older events were deleted, so their purchases are unknown; "
        "`lately report … --source mysql` counts the rows of the database"
    )


class _EventBatch:
    """Records that are read but not in the cache yet."""

    def __init__(self, cache: EventCache) -> None:
        self._cache = cache
        self._clear()

    def _clear(self) -> None:
        self._rows: list[EventRow] = []
        self._erasures: list[ErasureRow] = []
        self._unreadable: list[tuple[int, int]] = []
        self._positions: dict[int, ReadPosition] = {}
        self._cached = self._cache.positions()

    def add(self, partition: int, record_range: RecordRange) -> None:
        """Add the records of a range, and write the batch if it is full."""
        for offset, key, value in record_range.records:
            try:
                event = read_event(key, value)
            except UnreadableEvent:
                self._unreadable.append((partition, offset))
                continue
            if isinstance(event, UserErased):
                self._erasures.append(ErasureRow(partition, offset, event.data.user_id, event.data.version))
            else:
                self._rows.append(event_row(partition, offset, event.type, event.data))
        if record_range.records:
            offset, key, value = record_range.records[-1]
            self._positions[partition] = (record_range.next, offset, record_checksum(key, value))
        else:
            _, last, checksum = self._positions.get(partition) or self._cached.get(partition, (0, None, None))
            self._positions[partition] = (record_range.next, last, checksum)
        if len(self._rows) + len(self._unreadable) >= BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the batch to the cache."""
        if self._positions:
            self._cache.add(self._rows, self._unreadable, self._positions, erasures=self._erasures)
        self._clear()


@asynccontextmanager
async def open_order_log(settings: Settings) -> AsyncIterator[OrderLogReader]:
    """Open the topic `orders`. Raises ServerAway, BadTopic."""
    name = Topics(settings).orders.name
    if name in await missing_topics(settings):
        raise BadTopic(f"the topic {name} does not exist: set the LATELY_TOPIC_PREFIX of the workers")
    async with open_consumer(settings) as consumer:
        yield OrderLogReader(settings, consumer)
