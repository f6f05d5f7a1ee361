"""Rebuilding a lost partition of a table, and the first write of a new one.

The first record of a changelog is its beginning (BEGINNING_KEY), with a new id whenever the table
is started again. A rebuild writes its values after a new beginning; they count only once a position
follows them.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import islice
from typing import Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP

from chunks.chunk import Chunk
from chunks.fetch import fetch_ranges
from chunks.keys import BEGINNING_KEY, INCOMPLETE_SUFFIX, position_key
from chunks.lost import BEHIND, CUT, EMPTIED, EXPIRED, INTERRUPTED, Loss, RebuildPlan
from chunks.partition_task import PartitionTask, shield_until_done
from chunks.records import CHUNK_RECORDS, FetchedRecord, RecordRange
from chunks.restore import RestoreProgress
from chunks.store import COMMIT_MARKERS, Store, in_store_thread
from chunks.table import Table
from chunks.view import Values

log = logging.getLogger(__name__)

#: An offset that no topic reaches. A partition task with this end expects more records, so that its
#: transactions grow.
_UNREACHABLE_OFFSET = 2**62


class RebuildTables(Protocol):
    """The tables of a worker, as far as a rebuild uses them."""

    on_loss: Callable[[Loss], Awaitable[bool]]

    def __getitem__(self, name: str) -> Table:
        """Return a table by its name."""


class Rebuild:
    """Rebuilds the tables of one source partition, before its task is open."""

    def __init__(
        self, tables: RebuildTables, task: PartitionTask, reader: AIOKafkaConsumer, plan: RebuildPlan,
        progress: RestoreProgress,
    ) -> None:  # fmt: skip
        self._tables, self._task, self._reader = tables, task, reader
        self._plan, self._progress = plan, progress
        self._position: Values = {position_key(task.tp.topic): b"%d" % max(plan.position, plan.first)}

    async def run(self) -> None:
        """Write the beginnings of new tables, or rebuild the lost ones."""
        incomplete = set()
        for loss in self._plan.losses:
            if self._is_expected(loss):
                log.info("%s[%s] is built from another table: %s", loss.table, loss.partition, loss)
            elif not await self._report_loss(loss):
                incomplete.add(loss.table)
        if self._plan.new:
            await shield_until_done(self._write_beginnings(self._plan.new, incomplete, self._position))
            return
        for loss in self._plan.losses:
            if loss.reason == EXPIRED:
                await self._task.write({loss.table: self._position})
            elif loss.reason == CUT:
                await self._rewrite_changelog(loss)
            else:
                await self._fold_again(self._tables[loss.table], loss, incomplete)

    def _store(self, name: str) -> Store:
        return self._tables[name].stores[self._task.tp.partition]

    def _is_expected(self, loss: Loss) -> bool:
        """Return whether a copy of the rows of another table is missing after an update or a restore."""
        is_copy = self._tables[loss.table].derived_prefix is not None
        return is_copy and not loss.is_permanent and loss.reason in (EMPTIED, INTERRUPTED, BEHIND)

    async def _report_loss(self, loss: Loss) -> bool:
        """Log a loss and report it to the app; return whether everything lost will be recovered."""
        log.error("%s", loss)
        is_recovered_by_app = await self._tables.on_loss(loss)
        return not loss.is_permanent or is_recovered_by_app

    async def _write_beginnings(self, names: Iterable[str], incomplete: set[str], rows: Values) -> None:
        """Write new beginnings of some tables, followed by `rows` only.

        1. Write them to the changelogs, in one transaction. 2. Write them to the disks. This must
        not be interrupted: before step 2 the disks contain values that the new beginnings make
        void.
        """
        # 1.
        ids = {name: uuid.uuid4().hex.encode() + (INCOMPLETE_SUFFIX if name in incomplete else b"") for name in names}
        empty = {name for name in names if not self._store(name).offset}
        offsets = await self._task.write({name: {BEGINNING_KEY: value, **rows} for name, value in ids.items()})
        # 2.
        for name, offset in offsets.items():
            store = self._store(name)
            await in_store_thread(store.write_beginning, ids[name], offset, name in empty)
            await in_store_thread(store.apply, list(rows.items()), offset + 1 + len(rows), COMMIT_MARKERS)

    async def _restart_changelog(self, name: str, store: Store, beginning: bytes, key: bytes) -> None:
        """Write a new beginning of a table whose rows are kept, and delete its position.

        `key` is the key of the position.
        """
        offsets = await self._task.write({name: {BEGINNING_KEY: beginning, key: None}})
        await in_store_thread(store.write_beginning, beginning, offsets[name], True)
        await in_store_thread(store.apply, [], offsets[name] + 2)

    async def _fold_again(self, table: Table, loss: Loss, incomplete: set[str]) -> None:
        """Rebuild a table from its topic or another table.

        If this is interrupted, the next owner starts it again.

        1. Write a new beginning: older records of the changelog are void. 2. Fold all records
        before the position. 3. Write the position: from now on the table counts.
        """
        # 1.
        await shield_until_done(self._write_beginnings([loss.table], incomplete, {}))
        # 2.
        started, position = time.monotonic(), max(self._plan.position, self._plan.first)
        base = table.derived_from
        if base is None:
            ranges = self._read_source(position)
        else:
            ranges = self._read_rows(self._store(base.name), table.derived_prefix or b"")
        records = await self._fold(table.rebuild, loss, ranges) if table.rebuild is not None else 0
        # 3.
        await self._task.write({loss.table: self._position})
        log.warning(
            "%s[%s]: rebuilt from %s records in %.1f s%s", loss.table, loss.partition, records,
            time.monotonic() - started, "; the effects of older records are missing" if loss.is_permanent else "",
        )  # fmt: skip

    async def _fold(self, rebuild: Callable[[Chunk], None], loss: Loss, ranges: AsyncIterator[RecordRange]) -> int:
        """Fold record ranges into the lost table alone; return the number of records."""
        failures: list[BaseException] = []

        async def on_failure(exc: BaseException) -> None:
            failures.append(exc)

        task, is_open, records = self._task.for_rebuild(loss.table, on_failure), False, 0
        try:
            async for record_range in ranges:
                if not is_open:
                    task.open(record_range.first)
                    is_open = True
                chunk = task.begin_step(record_range)
                if chunk is not None:
                    rebuild(chunk)
                    await task.end_step(chunk)
                    records += len(chunk.records)
                if failures:
                    break
                self._progress.report_rebuild(f"{loss.table}[{loss.partition}]", records)
                await asyncio.sleep(0)
            if is_open:
                await task.settle()
        finally:
            await task.stop_commits()
        if failures:
            raise failures[0]
        return records

    async def _read_source(self, position: int) -> AsyncIterator[RecordRange]:
        """Yield all existing records of the source partition before `position`."""
        tp, offset = TopicPartition(*self._task.tp), self._plan.first
        self._reader.assign([tp])
        self._reader.seek(tp, offset)
        while offset < position:
            for record_range in (await fetch_ranges(self._reader, {tp}, 1.0, CHUNK_RECORDS)).get(TP(*tp), ()):
                if offset < position:
                    records = [record for record in record_range.records if record[0] < position]
                    yield RecordRange(offset, min(record_range.next, position), records, position)
                    offset = record_range.next

    async def _read_rows(self, store: Store, prefix: bytes) -> AsyncIterator[RecordRange]:
        """Yield the rows of a table whose key starts with `prefix`, with their numbers as offsets."""
        rows, first = store.snapshot().scan(prefix), 0
        while batch := list(islice(rows, CHUNK_RECORDS)):
            records: list[FetchedRecord] = [(first + number, key, value) for number, (key, value) in enumerate(batch)]
            yield RecordRange(first, first + len(batch), records, _UNREACHABLE_OFFSET)
            first += len(batch)

    async def _rewrite_changelog(self, loss: Loss) -> None:
        """Write all rows on disk to the changelog.

        If this is interrupted, the next owner folds the records again.

        1. Write a new beginning and delete the position. 2. Write the rows. 3. Write the position.
        """
        name, store = loss.table, self._store(loss.table)
        was_incomplete = store.is_incomplete
        beginning = uuid.uuid4().hex.encode() + (INCOMPLETE_SUFFIX if was_incomplete else b"")
        # 1.
        await shield_until_done(self._restart_changelog(name, store, beginning, next(iter(self._position))))
        # 2.
        rows, records = store.snapshot().scan(), 0
        while batch := dict(islice(rows, 10 * CHUNK_RECORDS)):
            await self._task.write({name: batch})
            records += len(batch)
            self._progress.report_rebuild(f"{name}[{loss.partition}]", records)
        # 3.
        await self._task.write({name: self._position})
        log.warning("%s[%s]: %s rows were written to the changelog again", name, loss.partition, records)
