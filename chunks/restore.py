"""Reads changelogs into the tables on disk: to their ends, and continuously for standbys."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP

from chunks.app import ChunkedApp
from chunks.client import client_options
from chunks.fetch import fetch_ranges, high_watermark, tune_consumer
from chunks.keys import BEGINNING_KEY
from chunks.records import RecordRange
from chunks.store import COMMIT_MARKERS, MAX_AGE_S, Store, in_store_thread

log = logging.getLogger(__name__)

#: Maximum number of changelog records in one batch.
RESTORE_RECORDS = 5_000
FETCH_BYTES = 4 * 2**20
#: aiokafka's default for all partitions of a broker.
FETCH_MAX_BYTES = 50 * 2**20
SMALL_FETCH_BYTES = 2**14
LOG_INTERVAL_S = 1.0
#: How long Kafka may take to show a commit to readers, and the time between two checks for it, in
#: seconds.
VISIBILITY_TIMEOUT_S, POLL_INTERVAL_S = 60.0, 0.02
#: A standby that lacks at most this number of records is as good as the owner's store.
NEAR_RECORDS = 5_000


@dataclass
class RestoreProgress:
    """Progress of a restore: changelog records to read, records read, start and end (monotonic)."""

    total: int = 0
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    #: The table partition that is rebuilt because its changelog was lost; empty: none is.
    rebuilding: str = ""

    @property
    def seconds(self) -> float:
        """Duration so far."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def rate(self) -> int:
        """Records per second."""
        return int(self.done / max(self.seconds, 1e-6))

    def report_rebuild(self, name: str, records: int) -> None:
        """Set the number of records in the table partition `name`, which is being rebuilt."""
        if self.rebuilding != name:
            self.rebuilding, self.started, self.ended = name, time.monotonic(), None
        self.done = self.total = records


def create_changelog_reader(
    app: ChunkedApp, max_bytes: int = FETCH_BYTES, max_total_bytes: int = FETCH_MAX_BYTES
) -> AIOKafkaConsumer:
    """Return a consumer of committed changelog records, not started yet.

    A fetch returns up to `max_bytes` of a partition, and `max_total_bytes` of all.
    """
    return tune_consumer(
        AIOKafkaConsumer(
            **client_options(app),
            client_id=f"{app.conf.broker_client_id}-changelogs",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=max_bytes,
            fetch_max_bytes=max_total_bytes,
        )
    )


class Restore:
    """Reads the changelogs that are assigned to a worker into its stores."""

    def __init__(self, app: ChunkedApp, reader: AIOKafkaConsumer, progress: RestoreProgress) -> None:
        self._app, self._tables, self._reader, self._progress = app, app.tables, reader, progress
        #: First offset and end offset of each changelog when the restore began.
        self._first: Mapping[TP, int] = {}
        self._ends: Mapping[TP, int] = {}

    async def run(self, actives: Iterable[TP], standbys: Iterable[TP]) -> tuple[set[TP], set[TP]]:
        """Apply the changelogs of active partitions, and prepare the standbys.

        Returns two sets of active partitions: those whose changelog has lost its beginning, which
        is on disk, and those whose changelog has lost its end.

        1. Read the range of each changelog. 2. Wipe stores that are not a state of their changelog.
        3. Read the active changelogs to their ends. 4. Compare the beginnings on disk with the
        changelogs.
        """
        actives = list(actives)
        changelogs = [*actives, *standbys]
        if not changelogs:
            return set(), set()
        # 1.
        self._first = await self._reader.beginning_offsets(changelogs)
        self._ends = await self._read_committed_ends(changelogs)
        self._tables.changelog_ends = {}
        for topic, partition in changelogs:
            self._tables.changelog_ends.setdefault(topic, {})[partition] = self._ends[TopicPartition(topic, partition)]
        foreign = await self._find_foreign(changelogs)
        # Standbys are not urgent: the active partitions are read first, and wait for nothing else.
        if actives:
            self._reader.assign(actives)
        # 2.
        beginnings_ahead = await self._wipe_unusable(changelogs, foreign)
        # 3.
        await self._read_to_ends(actives)
        # 4.
        beginnings = {tp: self._tables.store(tp).beginning for tp in actives}
        lost_start = {
            tp for tp, beginning in beginnings.items() if beginning is not None and beginning[1] < self._first[tp]
        }
        lost_end = {
            tp
            for tp, beginning in beginnings_ahead.items()
            if beginning is not None and beginning == beginnings.get(tp)
        }
        return lost_start, lost_end

    async def follow(self, standbys: Iterable[TP], warmup: Collection[TP]) -> None:
        """Apply changelogs to the standbys until the next rebalance.

        Requests that rebalance once all partitions of `warmup` are near the ends of their
        changelogs.
        """
        standbys, cold = list(standbys), list(warmup)
        if not standbys:
            return
        self._reader.assign(standbys)
        for tp in standbys:
            self._reader.seek(tp, self._start(tp))
        self._tables.on_standbys_ready()
        while True:
            await self._read(standbys)
            if cold:
                cold = [tp for tp in cold if not self._is_near(tp)]
                if not cold:
                    log.info("%s copies are warm: asking to take over", len(warmup))
                    self._app.assignor.report_warm()
                    self._app.consumer.rejoin()

    def _start(self, tp: TP) -> int:
        """Return the changelog offset at which reading starts."""
        return max(self._tables.store(tp).offset, self._first[tp])

    def _is_near(self, tp: TP) -> bool:
        end = max(self._ends[tp], high_watermark(self._reader, tp) or 0)
        return end - self._tables.store(tp).offset <= NEAR_RECORDS

    async def _read_committed_ends(self, changelogs: list[TP]) -> Mapping[TP, int]:
        """Return the offset up to which readers may read each changelog.

        Readers see a commit a moment after its owner. So a verified store may be ahead of them:
        then this waits, and only a changelog that is still shorter after VISIBILITY_TIMEOUT_S has
        lost its end.
        """
        until = time.monotonic() + VISIBILITY_TIMEOUT_S
        ends: Mapping[TP, int] = await self._reader.end_offsets(changelogs)
        while time.monotonic() < until and any(self._is_ahead(tp, end) for tp, end in ends.items()):
            await asyncio.sleep(POLL_INTERVAL_S)
            ends = await self._reader.end_offsets(changelogs)
        return ends

    def _is_ahead(self, tp: TP, end: int) -> bool:
        store = self._tables.store(tp)
        return store.is_verified and store.offset > end

    async def _find_foreign(self, changelogs: list[TP]) -> set[TP]:
        """Return the partitions on disk that belong to another changelog.

        The changelog has a different record at the offset of their beginning.
        """
        expected = {}
        for tp in changelogs:
            store = self._tables.store(tp)
            if not store.is_verified and store.beginning is not None and self._first[tp] <= store.beginning[1]:
                expected[tp] = store.beginning
        unread = {tp for tp, (_, offset) in expected.items() if offset < self._ends[tp]}
        foreign = set(expected) - unread
        if not unread:
            return foreign
        # A beginning is a small batch of its own.
        reader = create_changelog_reader(self._app, SMALL_FETCH_BYTES)
        await reader.start()
        try:
            reader.assign(list(unread))
            for tp in unread:
                reader.seek(tp, expected[tp][1])
            while unread:
                for tp, ranges in (await fetch_ranges(reader, unread, 1.0, RESTORE_RECORDS)).items():
                    records = [record for record_range in ranges for record in record_range.records]
                    if not records and ranges[-1].next < self._ends[tp]:
                        continue
                    value, offset = expected[tp]
                    if records[:1] != [(offset, BEGINNING_KEY, value)]:
                        foreign.add(tp)
                    unread.discard(tp)
        finally:
            await reader.stop()
        return foreign

    async def _wipe_unusable(
        self, changelogs: list[TP], foreign: set[TP]
    ) -> dict[TP, tuple[bytes, int] | None]:  # fmt: skip
        """Wipe the stores that are not a state of their changelog; then all are verified.

        Returns the beginnings of those that were ahead of their changelog.
        """
        beginnings_ahead: dict[TP, tuple[bytes, int] | None] = {}
        for tp in changelogs:
            store = self._tables.store(tp)
            if store.offset > self._ends[tp] and tp not in foreign:
                beginnings_ahead[tp] = store.beginning
            reason = self._find_wipe_reason(tp, store, tp in foreign)
            if reason is not None:
                log.warning("%s[%s]: the table on disk is rebuilt, %s", tp.topic, tp.partition, reason)
                await self._run_while_closed(tp, store.wipe)
            store.is_verified = True
        return beginnings_ahead

    def _find_wipe_reason(self, tp: TP, store: Store, is_foreign: bool) -> str | None:
        """Return why the store cannot be restored from its changelog; None if it can."""
        first, end = self._first[tp], self._ends[tp]
        if is_foreign:
            return "it belongs to another changelog, which was deleted and created again"
        if store.offset > end:
            return f"it is at {store.offset}, but the changelog ends at {end}"
        if 0 < store.offset < first:
            return f"it is at {store.offset}, but the changelog begins at {first}: the records between were deleted"
        # A store that was verified already, or lacks only the marker of a transaction, has missed
        # no deletion.
        if not store.is_verified and end - store.offset > COMMIT_MARKERS and store.age_s > MAX_AGE_S:
            return (
                f"it was not updated for {store.age_s / 3600:.0f} h: the changelog may have compacted deletions since"
            )
        return None

    async def _read_to_ends(self, actives: list[TP]) -> None:
        """Apply the changelogs of active partitions up to their ends, and report the progress."""
        progress = self._progress
        for tp in actives:
            self._reader.seek(tp, self._start(tp))
        missing = {tp: self._ends[tp] for tp in actives if self._start(tp) < self._ends[tp]}
        progress.total = self._count_left(missing)
        log.info("restoring %s records of %s changelog partitions", progress.total, len(missing))
        progress.started = logged = time.monotonic()
        while missing:
            for tp, offset in (await self._read(actives)).items():
                if offset >= missing.get(tp, offset + 1):
                    del missing[tp]
            progress.done = progress.total - self._count_left(missing)
            if missing and time.monotonic() - logged > LOG_INTERVAL_S:
                logged = time.monotonic()
                log.info("restored %s of %s records, %s/s", progress.done, progress.total, progress.rate)
        progress.done, progress.ended = progress.total, time.monotonic()
        log.info("restored %s records in %.2f s, %s/s", progress.total, progress.seconds, progress.rate)

    def _count_left(self, missing: Mapping[TP, int]) -> int:
        return sum(end - self._start(tp) for tp, end in missing.items())

    async def _read(self, changelogs: Iterable[TP]) -> dict[TP, int]:
        """Apply the fetched records; return the offset reached by each partition that advanced."""
        fetched = await fetch_ranges(self._reader, set(changelogs), 1.0, RESTORE_RECORDS)
        reached = {}
        for tp, ranges in fetched.items():
            store = self._tables.store(tp)
            for record_range in ranges:
                await self._apply(tp, store, record_range)
            reached[tp] = ranges[-1].next
        return reached

    async def _apply(self, tp: TP, store: Store, record_range: RecordRange) -> None:
        # Keys and values in two tuples: a search through the keys costs no more than to unpack each
        # record.
        offsets, keys, values = zip(*record_range.records, strict=True) if record_range.records else ((), (), ())
        if None in keys:
            # Not written by the engine, or unreadable: a row has a key.
            log.warning("%s[%s]: skipped %d records without a key", tp.topic, tp.partition, keys.count(None))
            own = [record for record in record_range.records if record[1] is not None]
            offsets, keys, values = zip(*own, strict=True) if own else ((), (), ())
        if BEGINNING_KEY in keys:
            # The engine writes no beginning without an id.
            beginnings = [n for n, key in enumerate(keys) if key == BEGINNING_KEY and values[n] is not None]
            if beginnings:
                last = beginnings[-1]
                await self._restart(tp, store, values[last], offsets[last])
                keys, values = keys[last + 1 :], values[last + 1 :]
        await in_store_thread(store.apply, zip(keys, values, strict=True), record_range.next)

    async def _restart(self, tp: TP, store: Store, beginning: bytes, offset: int) -> None:
        """Delete the rows of a store that are older than a beginning."""
        if store.beginning != (beginning, offset):
            await self._run_while_closed(tp, store.write_beginning, beginning, offset)

    async def _run_while_closed(self, tp: TP, work: Callable[..., None], *args: object) -> None:
        """Run `work` in the store's thread; meanwhile the partition is closed for readers."""
        stores = self._tables.table_of(tp.topic).stores
        store = stores.pop(tp.partition)
        try:
            await in_store_thread(work, *args)
        finally:
            stores[tp.partition] = store
