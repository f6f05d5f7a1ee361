"""Follows the changelog of a table in all partitions, whoever owns them.

A worker that needs a whole table for each request keeps a copy of its rows in memory. The copy does
not depend on the consumer group: it also exists in processes that do not run the agent of the
table, and a rebalance does not interrupt it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP
from mode import Service

from chunks.app import ChunkedApp
from chunks.fetch import fetch_ranges, tune_consumer
from chunks.keys import BEGINNING_KEY, RESERVED_PREFIX, RESTORING_KEY, parse_position, position_key
from chunks.records import CHUNK_RECORDS, RecordRange
from chunks.restore import create_changelog_reader

log = logging.getLogger(__name__)

RETRY_AFTER_S = 2.0
#: Bytes of a fetch, of a partition and of all: its records are decoded at once, which stops all
#: requests for some milliseconds.
FETCH_BYTES, FETCH_MAX_BYTES = 2**18, 2**20
#: All partitions are always fetched together, so a long wait delays no record.
MAX_WAIT_MS = 500

#: Keys and values, in the order of the changelog; None is the value of a deleted key.
Rows = Sequence[tuple[bytes, bytes | None]]


class RowCopy(Protocol):
    """Keeps the rows of the table."""

    def begin(self, partition: int) -> None:
        """The table of a partition begins anew: rows before this call do not count.

        They may stay visible until `complete`.
        """

    def apply(self, partition: int, rows: Rows) -> None:
        """Store rows of a partition."""

    def complete(self, partition: int) -> None:
        """All rows of a partition since the last `begin` are applied: older rows are void."""


class PartitionCopy:
    """State of one partition: which records are applied, and whether its rows count."""

    def __init__(self, partition: int, position_key: bytes, rows: RowCopy) -> None:
        self._partition, self._position_key, self._rows = partition, position_key, rows
        #: The next changelog record to apply.
        self.offset = 0
        #: The next record of the source topic that the rows do not contain; None: unknown.
        self.position: int | None = None
        self._has_begun = self._is_restoring = False
        #: Whether the rows counted once; they stay usable while the owner rebuilds the table.
        self.is_usable = False
        #: The end of the changelog when reading began; 0: the copy has reached it.
        self._unread_until = 0

    @property
    def is_complete(self) -> bool:
        """Whether the rows count and contained, at some time, all that there were when reading began.

        They stay complete if the changelog is lost: that of its rebuild may be much shorter.
        """
        return self.is_usable and not self._unread_until

    def expect(self, end: int) -> None:
        """Set the end of the changelog before reading begins."""
        self._unread_until = end if end > self.offset else 0

    def apply(self, record_range: RecordRange) -> None:
        """Apply a range of changelog records."""
        rows: list[tuple[bytes, bytes | None]] = []
        for _offset, key, value in record_range.records:
            if key is None:
                continue  # not written by the engine, or unreadable
            if key[:1] != RESERVED_PREFIX:
                rows.append((key, value))
                continue
            self._flush(rows)
            self._apply_own(key, value)
        self._flush(rows)
        is_new_changelog = record_range.first < self.offset
        self.offset = record_range.next
        if is_new_changelog or self.offset >= self._unread_until:
            self._unread_until = 0

    def reset(self) -> None:
        """Forget the applied records, because the changelog is another one."""
        self._rows.begin(self._partition)
        self.offset, self.position = 0, None
        self._has_begun = self._is_restoring = self.is_usable = False

    def _flush(self, rows: list[tuple[bytes, bytes | None]]) -> None:
        if rows and self._has_begun:
            self._rows.apply(self._partition, rows)
        rows.clear()

    def _apply_own(self, key: bytes, value: bytes | None) -> None:
        if key == BEGINNING_KEY and value is not None:
            self._has_begun, self._is_restoring, self.position = True, False, None
            self._rows.begin(self._partition)
        elif key == RESTORING_KEY:
            self._is_restoring = value is not None
        elif key == self._position_key:
            is_first = self.position is None
            self.position = parse_position(value)
            if is_first and self.position is not None and self._has_begun and not self._is_restoring:
                self._rows.complete(self._partition)
                self.is_usable = True


class ChangelogFollower(Service):
    """Applies the committed changelog of a table to `rows`, for as long as the worker runs."""

    def __init__(
        self, app: ChunkedApp, changelog: str, source_topic: str, partitions: int, rows: RowCopy, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._app, self._rows = app, rows
        self._tps = [TopicPartition(changelog, number) for number in range(partitions)]
        self._copies = {tp: PartitionCopy(tp.partition, position_key(source_topic), rows) for tp in self._tps}
        self._has_started_reading = False

    @property
    def is_complete(self) -> bool:
        """Whether the copy contains all rows that the table had when this worker began to read it."""
        return self._has_started_reading and all(copy.is_complete for copy in self._copies.values())

    def offsets(self) -> dict[int, int]:
        """Return partition -> the next changelog record to apply."""
        return {tp.partition: copy.offset for tp, copy in self._copies.items()}

    @Service.task
    async def _follow(self) -> None:
        while not self.should_stop:
            try:
                await self._read_until_stopped()
            except Exception as exc:  # also a record that this version cannot read: the worker goes on without the copy
                self.log.warning("%s cannot be read (%r); trying again", self._tps[0].topic, exc)
                await self.sleep(RETRY_AFTER_S)

    async def _read_until_stopped(self) -> None:
        reader = tune_consumer(create_changelog_reader(self._app, FETCH_BYTES, FETCH_MAX_BYTES), MAX_WAIT_MS)
        try:
            await reader.start()
            reader.assign(self._tps)
            await self._seek(reader)
            tps = {TP(*tp) for tp in self._tps}
            while not self.should_stop:
                for tp, ranges in (await fetch_ranges(reader, tps, 1.0, CHUNK_RECORDS)).items():
                    for record_range in ranges:
                        self._copies[TopicPartition(*tp)].apply(record_range)
                        await asyncio.sleep(0)  # a range takes about a millisecond: requests are served between two
        finally:
            await reader.stop()

    async def _seek(self, reader: AIOKafkaConsumer) -> None:
        """Continue where each copy ends. A changelog that is shorter was created again."""
        ends = await reader.end_offsets(self._tps)
        for tp, copy in self._copies.items():
            if copy.offset > ends[tp]:
                log.warning("%s[%s] was created again: its rows are read again", tp.topic, tp.partition)
                copy.reset()
            if not copy.is_complete:
                copy.expect(ends[tp])
            reader.seek(tp, copy.offset)
        self._has_started_reading = True
