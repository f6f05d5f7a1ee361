"""Making a lost partition of a table anew, and beginning one that was never there.

A changelog begins with a record of its own (`BEGINNING`), in each life of the table another one. What is rebuilt lies
behind a new one, and counts only once a position follows it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP

from chunks.fetch import fetch_ranges
from chunks.lost import CUT, EXPIRED, Loss, RebuildPlan
from chunks.partition_task import COMMIT_MARKERS, PartitionTask, shield_until_done
from chunks.records import CHUNK_RECORDS, RecordRange
from chunks.restore import RestoreProgress
from chunks.store import BEGINNING_KEY, INCOMPLETE_SUFFIX, Store, in_store_thread, position_key

log = logging.getLogger(__name__)

#: An offset that no topic reaches: whoever folds up to it knows that more comes.
_FAR = 2**62


class Rebuild:
    """The tables of one source partition, before its task is open."""

    def __init__(
        self,
        tables: Any,
        task: PartitionTask,
        reader: AIOKafkaConsumer,
        verdict: RebuildPlan,
        progress: RestoreProgress,
    ) -> None:
        self._tables, self._task, self._reader = tables, task, reader
        self._verdict, self._progress = verdict, progress
        self._position = {position_key(task.tp.topic): b"%d" % max(verdict.position, verdict.first)}

    async def run(self) -> None:
        """Begin what is new, make anew what is lost."""
        flagged = set()
        for loss in self._verdict.losses:
            if not await self._tell(loss):
                flagged.add(loss.table)
        if self._verdict.new:
            await shield_until_done(self._begin(self._verdict.new, flagged, self._position))
            return
        for loss in self._verdict.losses:
            table = self._table(loss.table)
            if loss.reason == EXPIRED:
                await self._task.write({loss.table: self._position})
            elif loss.reason == CUT:
                await self._write_down_again(loss)
            else:
                await self._fold_again(table, loss, flagged)

    def _table(self, name: str) -> Any:
        return self._tables[name]

    def _store(self, name: str) -> Store:
        return self._table(name).stores[self._task.tp.partition]

    async def _tell(self, loss: Loss) -> bool:
        """Say what is lost; whether all of it comes back."""
        log.error("%s", loss)
        brought = await self._tables.on_loss(loss)
        return not loss.is_permanent or brought

    async def _begin(self, names: Iterable[str], flagged: set[str], more: dict[bytes, bytes | None]) -> None:
        """Write a new beginning of some tables, behind which only `more` counts.

        It must not be left half done: `write` has put the new beginning on the disk, over what it makes void.
        """
        ids = {name: uuid.uuid4().hex.encode() + (INCOMPLETE_SUFFIX if name in flagged else b"") for name in names}
        empty = {name for name in names if not self._store(name).offset}
        offsets = await self._task.write({name: {BEGINNING_KEY: value, **more} for name, value in ids.items()})
        for name, offset in offsets.items():
            store = self._store(name)
            await in_store_thread(store.write_beginning, ids[name], offset, name in empty)
            await in_store_thread(store.apply, list(more.items()), offset + 1 + len(more), COMMIT_MARKERS)

    async def _begin_over(self, name: str, store: Store, beginning: bytes, position: bytes) -> None:
        """Write a new beginning of a table whose pairs are kept, and that it has no position."""
        offsets = await self._task.write({name: {BEGINNING_KEY: beginning, position: None}})
        await in_store_thread(store.write_beginning, beginning, offsets[name], True)
        await in_store_thread(store.apply, [], offsets[name] + 2)

    async def _fold_again(self, table: Any, loss: Loss, flagged: set[str]) -> None:
        """Rebuild a table; killed in between, it is begun again by whoever is next.

        1. Write a new beginning: what lies before it counts no more. 2. Fold again what led to the position. 3. Write
        the position: from now on the table counts.
        """
        # 1.
        await shield_until_done(self._begin([loss.table], flagged, {}))
        # 2.
        began, position = time.monotonic(), max(self._verdict.position, self._verdict.first)
        base = table.derived_from
        runs = self._pairs(self._store(base.name)) if base is not None else self._source(position)
        records = await self._folded(table, loss, runs) if table.rebuild is not None else 0
        # 3.
        await self._task.write({loss.table: self._position})
        log.warning(
            "%s[%s]: made anew from %s records in %.1f s%s", loss.table, loss.partition, records,
            time.monotonic() - began, "; what older records said is missing" if loss.is_permanent else "",
        )  # fmt: skip

    async def _folded(self, table: Any, loss: Loss, runs: AsyncIterator[RecordRange]) -> int:
        """Fold these runs into the table alone, in transactions as large as under load; how many records they have."""
        failures: list[BaseException] = []

        async def failed(exc: BaseException) -> None:
            failures.append(exc)

        apart, opened, records = self._task.for_rebuild(loss.table, failed), False, 0
        try:
            async for run in runs:
                if not opened:
                    apart.open(run.first)
                    opened = True
                chunk = apart.begin_step(run)
                if chunk is not None:
                    table.rebuild(chunk)
                    await apart.end_step(chunk)
                    records += len(chunk.records)
                if failures:
                    break
                self._progress.report_rebuild(f"{loss.table}[{loss.partition}]", records)
                await asyncio.sleep(0)
            if opened:
                await apart.settle()
        finally:
            await apart.stop_commits()
        if failures:
            raise failures[0]
        return records

    async def _source(self, position: int) -> AsyncIterator[RecordRange]:
        """What there is of the source partition before `position`."""
        tp, at = TopicPartition(*self._task.tp), self._verdict.first
        self._reader.assign([tp])
        self._reader.seek(tp, at)
        while at < position:
            for run in (await fetch_ranges(self._reader, {tp}, 1.0, CHUNK_RECORDS)).get(TP(*tp), ()):
                if at < position:
                    records = [one for one in run.records if one[0] < position]
                    yield RecordRange(at, min(run.next, position), records, position)
                    at = run.next

    async def _pairs(self, store: Store) -> AsyncIterator[RecordRange]:
        """All pairs of a table, numbered."""
        pairs, at = store.snapshot().scan(), 0
        while some := list(islice(pairs, CHUNK_RECORDS)):
            records = [(at + number, key, value) for number, (key, value) in enumerate(some)]
            yield RecordRange(at, at + len(some), records, _FAR)
            at += len(some)

    async def _write_down_again(self, loss: Loss) -> None:
        """Write all that the disk has to the changelog; killed in between, the table is rebuilt otherwise.

        1. Write a new beginning, and that there is no position. 2. Write the pairs. 3. Write the position.
        """
        name, store = loss.table, self._store(loss.table)
        (value, _), key = store.beginning, next(iter(self._position))
        value = uuid.uuid4().hex.encode() + (INCOMPLETE_SUFFIX if value.endswith(INCOMPLETE_SUFFIX) else b"")
        # 1.
        await shield_until_done(self._begin_over(name, store, value, key))
        # 2.
        pairs, records = store.snapshot().scan(), 0
        while some := dict(islice(pairs, 10 * CHUNK_RECORDS)):
            await self._task.write({name: some})
            records += len(some)
            self._progress.report_rebuild(f"{name}[{loss.partition}]", records)
        # 3.
        await self._task.write({name: self._position})
        log.warning("%s[%s]: %s pairs are in the changelog again", name, loss.partition, records)
