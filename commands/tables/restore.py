"""`lately tables restore`: writes the values of a dump to the changelogs.

Events since the dump are still in `orders`, and the workers read them again. Their output in the topics between two
tables is skipped, because the workers will send it again (docs/decisions/011-a-dump-is-one-moment.md).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from aiokafka import TopicPartition
from faust.types import TP

from app.control.identity import prepare_topics
from app.errors import BadDump
from app.kafka.admin import missing_topics
from app.kafka.groups import move_back
from app.settings import Settings
from app.topics import DUMPED_TABLES, Topics
from chunks import BEGINNING_KEY, RESTORING_KEY, Store, position_key
from commands.changelogs import ChangelogReader, open_changelogs
from commands.tables.dump import group_by_size, temporary_stores
from commands.tables.dump_check import require_restorable
from commands.tables.dump_file import (
    DumpHead,
    KeyValue,
    PairsFrame,
    PartitionSummary,
    RecordsFrame,
    read_frames,
    verify_dump,
)
from commands.tables.exclusive_writer import TopicMessage, WriteTransaction, open_exclusive_writer, require_no_worker
from domain.codec import encode
from domain.partitioning import partition_of
from domain.totals import decode_totals, encode_partial

Change = tuple[bytes, bytes | None]


class RestoreResult(NamedTuple):
    """Written values and tombstones of tables, and records between two tables; for a dry run, what would be written."""

    head: DumpHead
    values: int
    tombstones: int
    records: int


async def run(
    settings: Settings, path: Path, dry_run: bool = False, progress: Callable[[int, int], None] = lambda *_: None
) -> RestoreResult:
    """Write a dump to the changelogs. It can be repeated after a kill, and no worker starts before its end.

    1. Read and check the whole file. 2. Check that no worker runs. 3. Become the only writer, as a new owner of all
    partitions does. 4. Mark every changelog as half restored. 5. Write the values that differ, and tombstones for keys
    that the dump does not contain. 6. Send the records again that were in transit between two tables. 7. For each
    source partition, write the positions and remove the mark in one transaction. A table that is not in the dump
    begins anew there: its owner builds it from another table. 8. Move the committed offsets of the groups back, by
    which workers compute how fresh their lists are.

    Raises BadDump, StillRunning, ServerAway; then nothing is written, or the mark remains.
    """
    # 1.
    head = verify_dump(path)
    if head.partitions != settings.partitions:
        raise BadDump(
            f"{path} has {head.partitions} partitions, LATELY_PARTITIONS is {settings.partitions}: "
            "a dump can only be restored to the same number"
        )
    require_restorable(path, head, read_frames(path))
    if dry_run and await missing_topics(settings):
        return RestoreResult(head, head.keys, 0, 0)
    await prepare_topics(settings)
    async with open_changelogs(settings) as logs:
        await _require_same_orders(settings, logs, head)
        # 2.
        await require_no_worker(settings)
        # 3.
        async with open_exclusive_writer(settings, dry_run) as write:
            restoring = _Restore(settings, logs, head, write)
            # 4.
            await restoring.mark_restoring()
            # 5.
            await restoring.fill(path, progress)
            # 6.
            await restoring.resend_records(path)
            # 7.
            await restoring.write_positions()
        # 8.
        if not dry_run:
            positions = head.positions("by_user").items()
            orders = Topics(settings).orders.name
            await move_back(settings, {TopicPartition(orders, partition): offset for partition, offset in positions})
    return RestoreResult(head, restoring.values, restoring.tombstones, restoring.records)


class _Restore:
    def __init__(self, settings: Settings, logs: ChangelogReader, head: DumpHead, write: WriteTransaction) -> None:
        self._settings, self._logs, self._head, self._write = settings, logs, head, write
        self._topics = Topics(settings)
        self._ends: dict[TP, int] = {}
        self.values = self.tombstones = self.records = 0

    async def mark_restoring(self) -> None:
        """Mark every changelog, and store the end offsets of the source topics."""
        for source, tables in self._sources():
            await self._write(
                source, [(self._logs.tp(table, source.partition), RESTORING_KEY, b"1", []) for table in tables]
            )
            self._ends[source] = await self._logs.end_offset(source)

    async def fill(self, path: Path, progress: Callable[[int, int], None]) -> None:
        """Make the content of the changelogs equal to the dump."""
        pairs = (frame for frame in read_frames(path) if isinstance(frame, PairsFrame))
        frames_by_part = groupby(pairs, lambda frame: (frame.table, frame.partition))
        done = 0
        with temporary_stores(self._settings) as stores:
            for part in self._head.parts:
                expected: Iterator[KeyValue] = (
                    (pair for frame in next(frames_by_part)[1] for pair in frame.pairs) if part.keys else iter(())
                )
                with closing(stores.create(part.table, part.partition, Store)) as store:
                    await self._logs.copy(part.table, part.partition, store)
                    if store.get(BEGINNING_KEY) is None:
                        await self._write_beginning(part)
                    await self._replace(part, diff_pairs(expected, store.scan()))
                done += part.keys
                progress(done, max(1, self._head.keys))

    async def _write_beginning(self, part: PartitionSummary) -> None:
        """Write a beginning to an empty changelog, which is valid only from there on, and repeat the mark after it."""
        source, changelog = self._source(part.table, part.partition), self._logs.tp(part.table, part.partition)
        beginning = uuid.uuid4().hex.encode()
        await self._write(source, [(changelog, BEGINNING_KEY, beginning, []), (changelog, RESTORING_KEY, b"1", [])])

    async def _replace(self, part: PartitionSummary, differing: Iterator[Change]) -> None:
        source, changelog = self._source(part.table, part.partition), self._logs.tp(part.table, part.partition)
        for pairs in group_by_size(differing):
            await self._write(source, [(changelog, key, value, []) for key, value in pairs])
            self.tombstones += sum(value is None for _, value in pairs)
            self.values += sum(value is not None for _, value in pairs)

    async def resend_records(self, path: Path) -> None:
        """Send the records again that were in transit: all totals by product, and the records of the dump."""
        for frame in read_frames(path):
            if isinstance(frame, RecordsFrame):
                tp = TP(getattr(self._topics, frame.topic).name, frame.partition)
                await self._write(tp, [(tp, *record) for record in frame.records])
                self.records += len(frame.records)
            elif isinstance(frame, PairsFrame) and frame.table == "product_partials":
                await self._write(self._source(frame.table, frame.partition), list(self._partials(frame)))

    def _partials(self, frame: PairsFrame) -> Iterator[TopicMessage]:
        # The record with the greatest position is valid: extra records have no effect.
        topic, position = self._topics.product_partials.name, self._head.positions(frame.table)[frame.partition]
        for product, value in frame.pairs:
            tp = TP(topic, partition_of(product, self._settings.partitions))
            key = encode((product, frame.partition))
            totals = decode_totals(value)
            yield tp, key, encode_partial(product.decode(), frame.partition, position, totals), []

    async def write_positions(self) -> None:
        """Write the positions and remove the marks, in one transaction per source partition."""
        for source, tables in self._sources():
            messages: list[TopicMessage] = []
            for table in tables:
                changelog = self._logs.tp(table, source.partition)
                if table not in DUMPED_TABLES:
                    # Without a position the rows count no longer; all records before a beginning are void.
                    messages.append((changelog, BEGINNING_KEY, uuid.uuid4().hex.encode(), []))
                    continue
                # Records in a topic between two tables result from orders that will be read again.
                is_intermediate = source.topic != self._topics.orders.name
                position = self._ends[source] if is_intermediate else self._head.positions(table)[source.partition]
                messages.append((changelog, RESTORING_KEY, None, []))
                messages.append((changelog, position_key(source.topic), b"%d" % position, []))
            await self._write(source, messages)

    def _source(self, table: str, partition: int) -> TP:
        return TP(self._topics.source_topics[table], partition)

    def _sources(self) -> Iterator[tuple[TP, list[str]]]:
        """Each source partition with its tables."""
        for topic in dict.fromkeys(self._topics.source_topics.values()):
            tables = [table for table, source_topic in self._topics.source_topics.items() if source_topic == topic]
            for partition in range(self._settings.partitions):
                yield TP(topic, partition), tables


def diff_pairs(expected: Iterable[KeyValue], actual: Iterable[KeyValue]) -> Iterator[Change]:
    """Yield the changes that turn `actual` into `expected`, both ordered by key; the value None deletes a key."""
    rest = iter(actual)
    pair = next(rest, None)
    for key, value in expected:
        while pair is not None and pair[0] < key:
            yield pair[0], None
            pair = next(rest, None)
        if pair is None or pair[0] != key:
            yield key, value
            continue
        if pair[1] != value:
            yield key, value
        pair = next(rest, None)
    while pair is not None:
        yield pair[0], None
        pair = next(rest, None)


async def _require_same_orders(settings: Settings, logs: ChangelogReader, head: DumpHead) -> None:
    topic = Topics(settings).orders.name
    for partition, position in head.positions("by_user").items():
        end = await logs.end_offset(TP(topic, partition))
        if position > end:
            raise BadDump(
                f"the dump contains {topic}[{partition}] up to {position}, but that partition ends at {end}: "
                "the dump is of another topic, or the topic was created again; rebuild the tables from orders instead"
            )
