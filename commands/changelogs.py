"""Read changelog topics from a command: copy partitions, read between two offsets.

Only committed records are read. The records of one transaction in one changelog end with the record
that contains the source position.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from app.kafka.consume import RANGE_TIMEOUT_S, end_offset, open_consumer, read_partition
from app.settings import Settings
from app.topics import Topics
from chunks import BEGINNING_KEY, RESTORING_KEY, RecordRange, Store, fetch_ranges, position_key

#: Maximum number of changelog records of one fetch.
FETCH_RECORDS = 5_000
FETCH_BYTES = 4 * 2**20

Pair = tuple[bytes, bytes | None]


class ChangelogReader:
    """Reads the changelogs of one app.

    `committed` reads the records, `uncommitted` the end offsets.
    """

    def __init__(self, settings: Settings, committed: AIOKafkaConsumer, uncommitted: AIOKafkaConsumer) -> None:
        self._topics = Topics(settings)
        self._committed, self._uncommitted = committed, uncommitted

    def tp(self, table: str, partition: int) -> TP:
        """Return the changelog partition of a partition of a table."""
        return TP(self._topics.changelog(table), partition)

    def position_key(self, table: str) -> bytes:
        """Return the key of the changelog records that contain the table's source position."""
        return position_key(self._topics.source_topics[table])

    async def end_offset(self, tp: TP) -> int:
        """Return the end offset of a partition, open transactions included."""
        return await end_offset(self._uncommitted, tp)

    async def decided_offset(self, tp: TP) -> int:
        """Return the offset before the first open transaction of a partition."""
        return await end_offset(self._committed, tp)

    async def copy(
        self, table: str, partition: int, store: Store, max_position: int | None = None, safe_below: int = 0
    ) -> int | None:
        """Continue the copy of a changelog partition in `store` up to its present end.

        Return its source position. The copy contains complete transactions only. With
        `max_position` it contains only those that end at this source position or before it.
        Transactions below the changelog offset `safe_below` are copied unchecked.
        """
        tp = self.tp(table, partition)
        end, position = await self.end_offset(tp), store.offset
        transactions = _CompleteTransactions(self.position_key(table), end, max_position, safe_below)
        self._committed.assign([tp])
        self._committed.seek(tp, position)
        while position < end or transactions.is_open:
            ranges = (await fetch_ranges(self._committed, {tp}, RANGE_TIMEOUT_S, FETCH_RECORDS)).get(tp, [])
            if not ranges and transactions.is_open and position >= await self.end_offset(tp):
                break  # Compaction has removed the record that contains the source position.
            for fetched_range in ranges:
                pairs, position = transactions.take(fetched_range)
                _apply(store, pairs, position)
                if position >= end and not transactions.is_open:
                    break
        return store.position(self._topics.source_topics[table])

    def read_between(self, tp: TP, first: int, end: int) -> AsyncIterator[ConsumerRecord]:
        """Yield the committed records of a partition from offset `first` to before `end`."""
        return read_partition(self._committed, TopicPartition(*tp), first, end)


class _CompleteTransactions:
    """Splits a changelog into transactions, and returns the pairs of those to copy."""

    def __init__(self, marker: bytes, end: int, max_position: int | None, safe_below: int) -> None:
        self._markers = (marker, RESTORING_KEY)
        self._end, self._max_position, self._safe_below = end, max_position, safe_below
        self._pending: list[Pair] = []
        #: Whether the last record belongs to a transaction whose marker has not been read yet.
        self.is_open = False

    def take(self, fetched_range: RecordRange) -> tuple[list[Pair], int]:
        """Return the pairs to copy, and the offset after the last record that was taken.

        Records behind the end are taken only to complete the transaction that is open there.
        """
        pairs: list[Pair] = []
        for offset, key, value in fetched_range.records:
            if offset >= self._end and not self.is_open:
                return pairs, offset
            assert key is not None, "every record of a changelog has a key"
            self.is_open = key not in self._markers
            if self._max_position is None or offset < self._safe_below:
                pairs.append((key, value))
                continue
            self._pending.append((key, value))
            if not self.is_open:
                if int(value or 0) <= self._max_position:
                    pairs += self._pending
                self._pending = []
        return pairs, fetched_range.next


def _apply(store: Store, pairs: list[Pair], offset: int) -> None:
    beginnings = [index for index, (key, _) in enumerate(pairs) if key == BEGINNING_KEY]
    if beginnings:
        store.wipe()  # The table was built again from this record on.
    store.apply(pairs[beginnings[-1] if beginnings else 0 :], offset)


@asynccontextmanager
async def open_changelogs(settings: Settings) -> AsyncIterator[ChangelogReader]:
    """Open the changelogs of this app for reading. Raises ServerAway."""
    reader = open_consumer(settings, max_partition_fetch_bytes=FETCH_BYTES)
    ends = open_consumer(settings, isolation_level="read_uncommitted")
    async with reader as committed, ends as uncommitted:
        yield ChangelogReader(settings, committed, uncommitted)
