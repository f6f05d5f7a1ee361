"""The changelog topics, read by commands: a copy of each partition, and what is on its way between two tables.

Only what is committed is read. A transaction's records of one changelog end with its source position.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from app.kafka.client import client_options, explain_errors
from app.kafka.consume import RETRY_BACKOFF_MS, START_TIMEOUT_S
from app.settings import Settings
from app.topics import Topics
from chunks import BEGINNING_KEY, RESTORING_KEY, Store, fetch_ranges, position_key, tune_consumer

#: Changelog records that are taken over at once.
AT_ONCE = 5_000
FETCH_BYTES = 4 * 2**20


class ChangelogReader:
    """Reads changelogs of one app. `reader` sees what is committed, `heads` where topics end."""

    def __init__(self, settings: Settings, reader: AIOKafkaConsumer, heads: AIOKafkaConsumer) -> None:
        self._topics = Topics(settings)
        self._reader, self._heads = reader, heads

    def tp(self, table: str, partition: int) -> TP:
        """The changelog of a partition of a table."""
        return TP(self._topics.changelog(table), partition)

    def position_key(self, table: str) -> bytes:
        """Where a table notes the position in its source topic."""
        return position_key(self._topics.feeding[table])

    async def end_offset(self, tp: TP) -> int:
        """Where a partition ends, with what is not committed yet."""
        return (await self._heads.end_offsets([tp]))[tp]

    async def decided_offset(self, tp: TP) -> int:
        """Up to where all transactions of a partition have ended."""
        return (await self._reader.end_offsets([tp]))[tp]

    async def copy(
        self, table: str, partition: int, store: Store, until: int | None = None, sure: int = 0
    ) -> int | None:
        """Copy a changelog partition as of now into `store`, from where that is on; the source position.

        Whole transactions only. With `until` only those that end at this source position or before it; the ones below
        the changelog offset `sure` are known to do so.
        """
        tp, marker = self.tp(table, partition), self.position_key(table)
        end, at, inside = await self.end_offset(tp), store.offset, False
        waiting: list[tuple[bytes, bytes | None]] = []
        self._reader.assign([tp])
        self._reader.seek(tp, at)
        while at < end or inside:
            runs = (await fetch_ranges(self._reader, {tp}, 1.0, AT_ONCE)).get(tp, [])
            if not runs and inside and at >= await self.end_offset(tp):
                break  # compaction has taken the position away: there is none
            for run in runs:
                taken: list[tuple[bytes, bytes | None]] = []
                following = run.next
                for offset, key, value in run.records:
                    if offset >= end and not inside:
                        following = offset
                        break
                    inside = key not in (marker, RESTORING_KEY)
                    if until is None or offset < sure:
                        taken.append((key, value))
                        continue
                    waiting.append((key, value))
                    if not inside:
                        taken += waiting if int(value or 0) <= until else ()
                        waiting = []
                _apply(store, taken, following)
                at = following
                if at >= end and not inside:
                    break
        return store.position(self._topics.feeding[table])

    async def read_between(self, tp: TP, first: int, end: int) -> AsyncIterator[ConsumerRecord]:
        """The committed records of a partition from the offset `first` up to `end`."""
        if first >= end:
            return
        self._reader.assign([tp])
        self._reader.seek(tp, first)
        while await self._reader.position(tp) < end:
            for record in (await self._reader.getmany(TopicPartition(*tp), timeout_ms=500)).get(tp, ()):
                if record.offset < end:
                    yield record


def _apply(store: Store, records: list[tuple[bytes, bytes | None]], offset: int) -> None:
    begun = [number for number, (key, _) in enumerate(records) if key == BEGINNING_KEY]
    if begun:
        store.wipe()  # what lies before a beginning counts no more
    store.apply(records[begun[-1] if begun else 0 :], offset)


@asynccontextmanager
async def open_changelogs(settings: Settings) -> AsyncIterator[ChangelogReader]:
    """The changelogs of this app. Raises ServerAway."""
    common = {
        "enable_auto_commit": False, "auto_offset_reset": "earliest",
        "max_partition_fetch_bytes": FETCH_BYTES, "retry_backoff_ms": RETRY_BACKOFF_MS,
    }  # fmt: skip
    reader = tune_consumer(AIOKafkaConsumer(**client_options(settings), **common))
    heads = AIOKafkaConsumer(**client_options(settings), **common)
    async with explain_errors(settings):
        try:
            await asyncio.wait_for(asyncio.gather(reader.start(), heads.start()), START_TIMEOUT_S)
            yield ChangelogReader(settings, reader, heads)
        finally:
            await asyncio.gather(reader.stop(), heads.stop())
