"""The topic `orders` as the source of a report: what is not in the cache yet is read into it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer
from faust.types import TP

from app.errors import BadReport, BadTopic, ServerAway
from app.kafka.admin import missing_topics
from app.kafka.consume import consuming
from app.settings import Settings
from app.topics import Topics
from chunks.chunk import Run
from chunks.fetch import fetch
from commands.report.cache import BATCH_ROWS, Cache, Erased, Row, digest, row
from commands.report.position import Position
from domain.errors import UnreadableEvent
from domain.events import ERASED, read_event

#: How long Kafka may bring nothing; a transaction that is open holds up what is behind it.
SILENT_S = 60
FETCH_RECORDS = 5_000


class Log:
    """The topic, open for reading; a record of an open or aborted transaction is none."""

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer) -> None:
        self._consumer, self.topic = consumer, Topics(settings).orders.name
        self._tps = [TP(self.topic, number) for number in range(settings.partitions)]

    async def end(self) -> Position:
        """Where the topic ends now."""
        return {tp.partition: offset for tp, offset in (await self._consumer.end_offsets(self._tps)).items()}

    async def at(self, moment: int) -> Position:
        """Where it was at a moment (microseconds since 1970), by the time that Kafka notes with each record."""
        ends = await self.end()
        found = await self._consumer.offsets_for_times({tp: -(-moment // 1000) for tp in self._tps})
        return {
            tp.partition: ends[tp.partition] if found.get(tp) is None else found[tp].offset for tp in self._tps
        }  # fmt: skip

    async def require(self, position: Position) -> None:
        """Raise BadReport for a position that the topic has not reached."""
        for partition, offset in (await self.end()).items():
            if position[partition] > offset:
                raise BadReport(
                    f"--as-of: {self.topic}[{partition}] ends at {offset}, so it was never at {position[partition]}"
                )

    async def fill(self, cache: Cache, upto: Mapping[int, int], progress: Callable[[int, int], None]) -> None:
        """Read into the cache all below `upto` that it lacks; it can be stopped at any time and goes on from there.

        Raises BadReport when the beginning of the topic was deleted, ServerAway when Kafka falls silent.
        """
        earliest = await self._consumer.beginning_offsets(self._tps)
        if await self._is_another_topic(cache, earliest):
            cache.wipe()
        known = cache.positions()
        starts = {tp: known[tp.partition][0] if tp.partition in known else 0 for tp in self._tps}
        for tp, start in starts.items():
            if start < min(earliest[tp], upto[tp.partition]):
                raise _forgotten(tp, earliest[tp])
        left = {tp for tp in self._tps if starts[tp] < upto[tp.partition]}
        if not left:
            return
        total = sum(upto[tp.partition] - starts[tp] for tp in left)
        self._consumer.assign(sorted(left))
        for tp in left:
            self._consumer.seek(tp, starts[tp])
        batch, at = _Batch(cache), dict(starts)
        async for tp, run in self._runs(left):
            if run.first > at[tp]:
                raise _forgotten(tp, run.first)
            batch.take(tp.partition, run)
            at[tp] = run.next
            if run.next >= upto[tp.partition]:
                left.discard(tp)
            progress(min(total, sum(at[tp] - starts[tp] for tp in at)), total)
            if not left:
                break
        batch.flush()

    async def _runs(self, left: set[TP]) -> AsyncIterator[tuple[TP, Run]]:
        heard = time.monotonic()
        while True:
            found = await fetch(self._consumer, left, 1.0, FETCH_RECORDS)
            for tp, runs in found.items():
                for run in runs:
                    yield tp, run
            if found:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENT_S:
                raise ServerAway(
                    f"Kafka has brought nothing of {self.topic} for {SILENT_S} s: the same command goes on from here"
                )

    async def _is_another_topic(self, cache: Cache, earliest: Mapping[TP, int]) -> bool:
        """Whether it was deleted and made anew: then there are other records where the cache has read its last ones."""
        known, ends = cache.positions(), await self.end()
        if any(following > ends[partition] for partition, (following, _, _) in known.items()):
            return True
        marks = {TP(self.topic, partition): known[partition][1:] for partition in known}
        left = {tp for tp, (last, _) in marks.items() if last is not None and last >= earliest[tp]}
        if not left:
            return False
        self._consumer.assign(sorted(left))
        for tp in left:
            self._consumer.seek(tp, marks[tp][0])
        async for tp, run in self._runs(set(left)):
            if tp not in left or not run.records:
                continue
            offset, key, value = run.records[0]
            if (offset, digest(key, value)) != marks[tp]:
                return True
            left.discard(tp)
            if not left:
                break
        return False


def _forgotten(tp: TP, begin: int) -> BadReport:
    return BadReport(
        f"{tp.topic}[{tp.partition}] begins at {begin}: what was before it was deleted, so its purchases are not "
        "known; `lately report … --source mysql` counts what the database has"
    )


class _Batch:
    """What was read and is not in the cache yet."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._clear()

    def _clear(self) -> None:
        self._rows: list[Row] = []
        self._erasures: list[Erased] = []
        self._unreadable: list[tuple[int, int]] = []
        self._positions: dict[int, tuple[int, int | None, int | None]] = {}
        self._known = self._cache.positions()

    def take(self, partition: int, run: Run) -> None:
        """Add the records of a run."""
        for offset, key, value in run.records:
            try:
                event = read_event(key, value)
            except UnreadableEvent:
                self._unreadable.append((partition, offset))
                continue
            if event.type == ERASED:
                self._erasures.append(Erased(partition, offset, event.data.user_id, event.data.version))
            else:
                self._rows.append(row(partition, offset, event.type, event.data))
        if run.records:
            offset, key, value = run.records[-1]
            last = (offset, digest(key, value))
        else:
            last = (self._positions.get(partition) or self._known.get(partition, (0, None, None)))[1:]
        self._positions[partition] = (run.next, *last)
        if len(self._rows) + len(self._unreadable) >= BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write it all."""
        if self._positions:
            self._cache.add(self._rows, self._unreadable, self._positions, erasures=self._erasures)
        self._clear()


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[Log]:
    """The topic `orders`. Raises ServerAway, BadTopic."""
    name = Topics(settings).orders.name
    if name in await missing_topics(settings):
        raise BadTopic(f"there is no topic {name}: set LATELY_TOPIC_PREFIX as the workers have it")
    async with consuming(settings) as consumer:
        yield Log(settings, consumer)
