"""Reading changelogs into the tables on disk: to their ends as of now, and on and on for standbys."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP, AppT

from chunks.client import client_options
from chunks.fetch import fetch_ranges, high_watermark, tune_consumer
from chunks.store import BEGINNING_KEY, COMMIT_MARKERS, MAX_AGE_S, Store, in_store_thread

log = logging.getLogger(__name__)

#: Changelog records that are applied in one batch.
RESTORE_RECORDS = 5_000
FETCH_BYTES = 4 * 2**20
SMALL_BYTES = 2**14
LOG_EVERY_S = 1.0
#: How long Kafka may take to tell readers of a commit, and how soon to ask it again, in seconds.
VISIBILITY_TIMEOUT_S, POLL_INTERVAL_S = 60.0, 0.02
#: A copy that lacks so few is as good as its owner's.
NEAR_RECORDS = 5_000


@dataclass
class RestoreProgress:
    """How far a restore is: changelog records to read in all, read so far, and since when."""

    total: int = 0
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    #: The table partition that is made anew because its changelog was lost; empty: none is.
    rebuilding: str = ""

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def rate(self) -> int:
        """Records per second."""
        return int(self.done / max(self.seconds, 1e-6))

    def report_rebuild(self, what: str, records: int) -> None:
        """So many records are in the table partition `what`, which is made anew."""
        if self.rebuilding != what:
            self.rebuilding, self.started, self.ended = what, time.monotonic(), None
        self.done = self.total = records


def changelog_reader(app: AppT, most_bytes: int = FETCH_BYTES) -> AIOKafkaConsumer:
    """What reads changelogs, to be started; committed records only."""
    return tune_consumer(
        AIOKafkaConsumer(
            **client_options(app),
            client_id=f"{app.conf.broker_client_id}-changelogs",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=most_bytes,
        )
    )


class Restore:
    """The changelogs of what a worker is assigned, on their way into its stores."""

    def __init__(self, app: AppT, reader: AIOKafkaConsumer, progress: RestoreProgress) -> None:
        self._app, self._tables, self._reader, self._progress = app, app.tables, reader, progress
        #: Where the changelogs began and ended when the restore did.
        self._first: Mapping[TP, int] = {}
        self._ends: Mapping[TP, int] = {}

    async def run(self, actives: Iterable[TP], standbys: Iterable[TP]) -> tuple[set[TP], set[TP]]:
        """Apply the changelogs of active partitions to the disks, those of others are only made ready for it.

        Returns those that have lost their beginning, which is on disk, or their end.
        """
        actives = list(actives)
        changelogs = [*actives, *standbys]
        if not changelogs:
            return set(), set()
        reader, progress = self._reader, self._progress
        first, ends = await reader.beginning_offsets(changelogs), await self._committed_ends(changelogs)
        self._first, self._ends = first, ends
        self._tables.changelog_ends = {}
        for topic, partition in changelogs:
            self._tables.changelog_ends.setdefault(topic, {})[partition] = ends[TopicPartition(topic, partition)]
        strange = await self._strange(changelogs, first, ends)
        # Copies have time: what is processed here waits for nothing else.
        if actives:
            reader.assign(actives)
        ahead: dict[TP, tuple[bytes, int] | None] = {}
        for tp in changelogs:
            store = self._tables.store(tp)
            if store.offset > ends[tp] and tp not in strange:
                ahead[tp] = store.beginning
            await self._wipe_if_unfit(tp, store, first[tp], ends[tp], tp in strange)
            store.is_verified = True
        for tp in actives:
            reader.seek(tp, max(self._tables.store(tp).offset, first[tp]))
        missing = {tp: ends[tp] for tp in actives if max(self._tables.store(tp).offset, first[tp]) < ends[tp]}
        progress.total = sum(end - max(self._tables.store(tp).offset, first[tp]) for tp, end in missing.items())
        log.info("restoring %s records of %s changelog partitions", progress.total, len(missing))
        progress.started = time.monotonic()
        logged = time.monotonic()
        while missing:
            for tp, offset in (await self._read(actives)).items():
                if offset >= missing.get(tp, offset + 1):
                    del missing[tp]
            left = sum(end - max(self._tables.store(tp).offset, first[tp]) for tp, end in missing.items())
            progress.done = progress.total - left
            if missing and time.monotonic() - logged > LOG_EVERY_S:
                logged = time.monotonic()
                log.info("restored %s of %s records, %s/s", progress.done, progress.total, progress.rate)
        progress.done, progress.ended = progress.total, time.monotonic()
        log.info("restored %s records in %.2f s, %s/s", progress.total, progress.seconds, progress.rate)
        beginnings = {tp: self._tables.store(tp).beginning for tp in actives}
        cut = {tp for tp, one in beginnings.items() if one is not None and one[1] < first[tp]}
        return cut, {tp for tp, one in ahead.items() if one is not None and one == beginnings.get(tp)}

    async def follow(self, standbys: Iterable[TP], warming: Collection[TP]) -> None:
        """Keep the standbys as their changelogs are, until the next rebalance; asks for it when the `warming` are."""
        standbys, cold = list(standbys), list(warming)
        if not standbys:
            return
        self._reader.assign(standbys)
        for tp in standbys:
            self._reader.seek(tp, max(self._tables.store(tp).offset, self._first[tp]))
        self._tables.on_standbys_ready()
        while True:
            await self._read(standbys)
            if cold:
                cold = [tp for tp in cold if not self._is_near(tp)]
                if not cold:
                    log.info("%s copies are warm: asking to take over", len(warming))
                    self._app.assignor.report_warm()
                    self._app.consumer.rejoin()

    def _is_near(self, tp: TP) -> bool:
        end = max(self._ends[tp], high_watermark(self._reader, tp) or 0)
        return end - self._tables.store(tp).offset <= NEAR_RECORDS

    async def _committed_ends(self, changelogs: list[TP]) -> Mapping[TP, int]:
        """Where readers may read to.

        Readers are told of a commit a moment after its owner, so a store that was followed until now may seem to be
        ahead of them: then they are waited for, and only what stays behind for so long has lost its end.
        """
        until = time.monotonic() + VISIBILITY_TIMEOUT_S
        ends = await self._reader.end_offsets(changelogs)
        while time.monotonic() < until and any(self._is_ahead(tp, end) for tp, end in ends.items()):
            await asyncio.sleep(POLL_INTERVAL_S)
            ends = await self._reader.end_offsets(changelogs)
        return ends

    def _is_ahead(self, tp: TP, end: int) -> bool:
        store = self._tables.store(tp)
        return store.is_verified and store.offset > end

    async def _strange(self, changelogs: list[TP], first: Mapping[TP, int], ends: Mapping[TP, int]) -> set[TP]:
        """The partitions on disk that belong to another changelog: it has no such beginning where theirs was."""
        wanted = {}
        for tp in changelogs:
            store = self._tables.store(tp)
            if not store.is_verified and store.beginning is not None and first[tp] <= store.beginning[1]:
                wanted[tp] = store.beginning
        asked = {tp for tp, (_, offset) in wanted.items() if offset < ends[tp]}
        strange = set(wanted) - asked
        if not asked:
            return strange
        # A beginning is a small batch of its own.
        reader = changelog_reader(self._app, SMALL_BYTES)
        await reader.start()
        try:
            reader.assign(list(asked))
            for tp in asked:
                reader.seek(tp, wanted[tp][1])
            while asked:
                for tp, runs in (await fetch_ranges(reader, asked, 1.0, RESTORE_RECORDS)).items():
                    records = [record for run in runs for record in run.records]
                    if not records and runs[-1].next < ends[tp]:
                        continue
                    value, offset = wanted[tp]
                    if records[:1] != [(offset, BEGINNING_KEY, value)]:
                        strange.add(tp)
                    asked.discard(tp)
        finally:
            await reader.stop()
        return strange

    async def _wipe_if_unfit(self, tp: TP, store: Store, first: int, end: int, strange: bool) -> None:
        if strange:
            why = "it belongs to another changelog: that was made anew"
        elif store.offset > end:
            why = f"it is at {store.offset}, but the changelog ends at {end}"
        elif 0 < store.offset < first:
            why = f"it is at {store.offset}, but the changelog begins at {first}: what lay between was deleted"
        # What was followed until now, or lacks the marker of a transaction only, has missed nothing.
        elif not store.is_verified and end - store.offset > COMMIT_MARKERS and store.age_s > MAX_AGE_S:
            why = f"it was left alone for {store.age_s / 3600:.0f} h: the changelog may have forgotten deletions since"
        else:
            return
        log.warning("%s[%s]: the table on disk is made anew, %s", tp.topic, tp.partition, why)
        await self._hidden(tp, store.wipe)

    async def _read(self, changelogs: Iterable[TP]) -> dict[TP, int]:
        """Apply what has arrived; the offset reached by each partition that moved."""
        runs = await fetch_ranges(self._reader, set(changelogs), 1.0, RESTORE_RECORDS)
        moved = {}
        for tp, parts in runs.items():
            store = self._tables.store(tp)
            for run in parts:
                # Keys and values in two rows: to look through the keys costs no more than to take records apart.
                offsets, keys, values = zip(*run.records, strict=True) if run.records else ((), (), ())
                if BEGINNING_KEY in keys:
                    begun = max(number for number, key in enumerate(keys) if key == BEGINNING_KEY)
                    await self._begin_anew(tp, store, values[begun], offsets[begun])
                    keys, values = keys[begun + 1 :], values[begun + 1 :]
                await in_store_thread(store.apply, zip(keys, values, strict=True), run.next)
            moved[tp] = parts[-1].next
        return moved

    async def _begin_anew(self, tp: TP, store: Store, beginning: bytes, offset: int) -> None:
        """Forget what lies before a beginning."""
        if store.beginning != (beginning, offset):
            await self._hidden(tp, store.write_beginning, beginning, offset)

    async def _hidden(self, tp: TP, work: Callable[..., None], *args: object) -> None:
        """Do something to a store; who reads it meanwhile is told that it is closed."""
        stores = self._tables.table_of(tp.topic).stores
        store = stores.pop(tp.partition)
        try:
            await in_store_thread(work, *args)
        finally:
            stores[tp.partition] = store
