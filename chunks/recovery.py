"""From an assignment to running streams: fence, restore, seek, resume; and standbys that follow their changelogs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from faust.transport.drivers.aiokafka import server_list
from faust.types import TP, AppT
from mode import Service

from chunks.errors import Gap, HalfRestored
from chunks.fetch import fetch, tune
from chunks.ledger import BATCH_BYTES, MAX_REQUEST_BYTES, TRANSACTION_TIMEOUT_MS, Ledger
from chunks.lost import Found, judge
from chunks.rebuild import Rebuild
from chunks.store import BEGINNING, RESTORING, Store, off_loop

#: Changelog records that are applied in one batch.
RESTORE_RECORDS = 5_000
FETCH_BYTES = 4 * 2**20
SMALL_BYTES = 2**14
LOG_EVERY_S = 1.0
#: Kafka keeps the markers of deleted keys for a day (delete.retention.ms); a disk that missed one would show the key
#: for ever.
MAX_AGE_S = 12 * 3600


@dataclass
class Progress:
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


class Recovery(Service):
    """Replaces: recovery through the streams' queues. The changelogs have a consumer of their own, in chunks."""

    def __init__(self, app: AppT, tables: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.app = app
        self.tables = tables
        self.completed = asyncio.Event()
        self.in_recovery = False
        self.progress = Progress()
        self._work: asyncio.Task | None = None
        self._rebalance = 0

    # -- called by Faust

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Do nothing: the consumer has settled the ledgers and left before."""

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Begin to recover what is assigned now."""
        await self.leave()
        self._rebalance = self.app.rebalancing_count
        self.in_recovery = True
        self._work = asyncio.create_task(self._guarded(generation_id), name="recovery")

    async def leave(self) -> None:
        """End whatever is under way and give up all source partitions."""
        if self._work is not None:
            work, self._work = self._work, None
            work.cancel()
            await asyncio.wait([work])
        for table in self.tables.values():
            for store in table.stores.values():
                store.watches.end()
        ledgers = list(self.tables.ledgers.values())
        self.tables.ledgers.clear()
        await asyncio.gather(*(ledger.close() for ledger in ledgers))

    async def on_stop(self) -> None:
        """Leave."""
        await self.leave()

    # -- the work

    async def _guarded(self, generation_id: int) -> None:
        try:
            await self._recover(generation_id)
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            await self.app.consumer.crash(exc)

    async def _recover(self, generation_id: int) -> None:
        """Make the tables complete and let the streams run.

        1. Open the partitions that are assigned, close the others. 2. Become the only one who can write: start the
        producers, which ends open transactions of former owners. 3. Read the changelogs to their ends as of now.
        4. Make anew what they have lost. 5. Each source partition goes on where its state ends.
        """
        actives = self._changelogs(self.app.assignor.assigned_actives())
        standbys = self._changelogs(self.app.assignor.assigned_standbys())
        # 1.
        await self._open_and_close({*actives, *standbys})
        # 2.
        sources = self._sources(actives)
        share = self.tables.cache_bytes // max(1, len(sources))
        ledgers: list[Ledger] = []
        try:
            starting = [self._ledger(tp, changelogs, share, ledgers) for tp, changelogs in sources.items()]
            await asyncio.gather(*starting)
            reader = self._reader()
            await reader.start()
            try:
                # 3.
                cut, short = await self._restore(reader, actives, standbys)
                self._demand_whole(actives)
                # 4.
                positions = await self._whole(reader, {one.tp: one for one in ledgers}, sources, cut, short)
                # 5.
                for ledger in ledgers:
                    ledger.open(positions[ledger.tp])
                self.tables.ledgers.update((ledger.tp, ledger) for ledger in ledgers)
                ledgers.clear()
                await self._resume(positions, generation_id)
                await self._follow(reader, standbys)
            finally:
                await reader.stop()
        finally:
            await asyncio.gather(*(ledger.close() for ledger in ledgers))

    def _changelogs(self, tps: Iterable[TP]) -> list[TP]:
        return sorted(TopicPartition(*tp) for tp in tps if tp.topic in self.tables.changelog_topics)

    def _table(self, changelog: str) -> Any:
        return self.tables._changelogs[changelog]

    def _store(self, changelog: TP) -> Store:
        return self._table(changelog.topic).stores[changelog.partition]

    async def _open_and_close(self, changelogs: set[TP]) -> None:
        wanted = {(self._table(tp.topic), tp.partition) for tp in changelogs}
        for table in self.tables.values():
            for partition in list(table.stores):
                if (table, partition) not in wanted:
                    await off_loop(table.close, partition)
        await asyncio.gather(*(off_loop(table.open, partition) for table, partition in wanted))

    def _sources(self, actives: Iterable[TP]) -> dict[TP, list[TP]]:
        """Source partition -> the changelog partitions of the tables that it feeds."""
        sources: dict[TP, list[TP]] = {}
        for changelog in actives:
            source = TP(self._table(changelog.topic).fed_by, changelog.partition)
            sources.setdefault(source, []).append(changelog)
        return sources

    async def _ledger(self, source: TP, changelogs: list[TP], cache_bytes: int, started: list[Ledger]) -> None:
        conf = self.app.conf
        producer = AIOKafkaProducer(
            bootstrap_servers=server_list(self.app.transport.url, self.app.transport.default_port),
            client_id=f"{conf.broker_client_id}-{source.topic}-{source.partition}",
            transactional_id=f"{conf.id}-{source.topic}-{source.partition}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_batch_size=BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
        )
        stores = {self._table(tp.topic).name: (tp, self._store(tp)) for tp in changelogs}
        patient = source.topic in self.tables.background
        crash, stamp = self.app.consumer.crash, self.tables.stamp
        started.append(Ledger(source, stores, producer, cache_bytes, crash, patient, stamp))
        await producer.start()

    def _reader(self, most_bytes: int = FETCH_BYTES) -> AIOKafkaConsumer:
        return tune(
            AIOKafkaConsumer(
                bootstrap_servers=server_list(self.app.transport.url, self.app.transport.default_port),
                client_id=f"{self.app.conf.broker_client_id}-changelogs",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=most_bytes,
            )
        )

    async def _restore(
        self, reader: AIOKafkaConsumer, actives: Iterable[TP], standbys: Iterable[TP]
    ) -> tuple[set[TP], set[TP]]:
        """Apply the changelogs to the disks; those that have lost their beginning, which is on disk, or their end."""
        changelogs = [*actives, *standbys]
        self.progress = Progress()
        if not changelogs:
            return set(), set()
        first, ends = await reader.beginning_offsets(changelogs), await reader.end_offsets(changelogs)
        strange = await self._strange(changelogs, first, ends)
        reader.assign(changelogs)
        ahead: dict[TP, tuple[bytes, int] | None] = {}
        for tp in changelogs:
            store = self._store(tp)
            if store.offset > ends[tp] and tp not in strange:
                ahead[tp] = store.beginning
            await self._wipe_if_unfit(tp, store, first[tp], ends[tp], tp in strange)
            store.trusted = True
            reader.seek(tp, max(store.offset, first[tp]))
        missing = {tp: ends[tp] for tp in actives if max(self._store(tp).offset, first[tp]) < ends[tp]}
        self.progress.total = sum(end - max(self._store(tp).offset, first[tp]) for tp, end in missing.items())
        self.log.info("restoring %s records of %s changelog partitions", self.progress.total, len(missing))
        self.progress.started = time.monotonic()
        logged = time.monotonic()
        while missing:
            for tp, offset in (await self._read(reader, changelogs)).items():
                if offset >= missing.get(tp, offset + 1):
                    del missing[tp]
            left = sum(end - max(self._store(tp).offset, first[tp]) for tp, end in missing.items())
            self.progress.done = self.progress.total - left
            if missing and time.monotonic() - logged > LOG_EVERY_S:
                logged = time.monotonic()
                progress = self.progress
                self.log.info("restored %s of %s records, %s/s", progress.done, progress.total, progress.rate)
        self.progress.done, self.progress.ended = self.progress.total, time.monotonic()
        self.log.info(
            "restored %s records in %.2f s, %s/s", self.progress.total, self.progress.seconds, self.progress.rate
        )
        beginnings = {tp: self._store(tp).beginning for tp in actives}
        cut = {tp for tp, one in beginnings.items() if one is not None and one[1] < first[tp]}
        return cut, {tp for tp, one in ahead.items() if one is not None and one == beginnings.get(tp)}

    async def _strange(self, changelogs: list[TP], first: Mapping[TP, int], ends: Mapping[TP, int]) -> set[TP]:
        """The partitions on disk that belong to another changelog: it has no such beginning where theirs was."""
        wanted = {}
        for tp in changelogs:
            store = self._store(tp)
            if not store.trusted and store.beginning is not None and first[tp] <= store.beginning[1]:
                wanted[tp] = store.beginning
        asked = {tp for tp, (_, offset) in wanted.items() if offset < ends[tp]}
        strange = set(wanted) - asked
        if not asked:
            return strange
        # A beginning is a small batch of its own.
        reader = self._reader(SMALL_BYTES)
        await reader.start()
        try:
            reader.assign(list(asked))
            for tp in asked:
                reader.seek(tp, wanted[tp][1])
            while asked:
                for tp, runs in (await fetch(reader, asked, 1.0, RESTORE_RECORDS)).items():
                    records = [record for run in runs for record in run.records]
                    if not records and runs[-1].next < ends[tp]:
                        continue
                    value, offset = wanted[tp]
                    if records[:1] != [(offset, BEGINNING, value)]:
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
        elif store.age_s > MAX_AGE_S:
            why = f"it was left alone for {store.age_s / 3600:.0f} h: the changelog may have forgotten deletions since"
        else:
            return
        self.log.warning("%s[%s]: the table on disk is made anew, %s", tp.topic, tp.partition, why)
        await off_loop(store.wipe)

    def _demand_whole(self, actives: Iterable[TP]) -> None:
        """Raise HalfRestored where a restore from a dump has begun and not ended."""
        for tp in actives:
            if self._store(tp).get(RESTORING) is not None:
                raise HalfRestored(
                    f"{tp.topic}[{tp.partition}]: a restore of this table has begun and not ended: "
                    "run it again to its end, then start the worker"
                )

    async def _read(self, reader: AIOKafkaConsumer, changelogs: Iterable[TP]) -> dict[TP, int]:
        """Apply what has arrived; the offset reached by each partition that moved."""
        runs = await fetch(reader, set(changelogs), 1.0, RESTORE_RECORDS)
        moved = {}
        for tp, parts in runs.items():
            store = self._store(tp)
            for run in parts:
                # Keys and values in two rows: to look through the keys costs no more than to take records apart.
                offsets, keys, values = zip(*run.records, strict=True) if run.records else ((), (), ())
                if BEGINNING in keys:
                    begun = max(number for number, key in enumerate(keys) if key == BEGINNING)
                    await self._begin_anew(tp, store, values[begun], offsets[begun])
                    keys, values = keys[begun + 1 :], values[begun + 1 :]
                await off_loop(store.apply, zip(keys, values, strict=True), run.next)
            moved[tp] = parts[-1].next
        return moved

    async def _begin_anew(self, tp: TP, store: Store, beginning: bytes, offset: int) -> None:
        """Forget what lies before a beginning; who reads a standby meanwhile is told that it is closed."""
        if store.beginning != (beginning, offset):
            stores = self._table(tp.topic).stores
            del stores[tp.partition]
            try:
                await off_loop(store.begin, beginning, offset)
            finally:
                stores[tp.partition] = store

    async def _whole(
        self, reader: AIOKafkaConsumer, ledgers: dict[TP, Ledger], sources: dict[TP, list[TP]], cut: set[TP],
        short: set[TP],
    ) -> dict[TP, int]:  # fmt: skip
        """Make anew what the changelogs have lost; where each source partition goes on.

        Raises Gap when the tables contain more than the topic has.
        """
        if not sources:
            return {}
        consumer = self.app.consumer
        earliest, ends = await consumer.earliest_offsets(*sources), await consumer.highwaters(*sources)
        positions, new = {}, []
        for source, changelogs in sources.items():
            found = {self._table(tp.topic).name: self._found(tp, source, tp in cut, tp in short) for tp in changelogs}
            committed = None if all(one.whole for one in found.values()) else await consumer.committed(source)
            verdict = judge(source.partition, found, committed, earliest[source], ends[source])
            if verdict.position > ends[source]:
                raise Gap(
                    f"{source.topic}[{source.partition}] ends at {ends[source]}, but the tables contain records up to "
                    f"{verdict.position - 1}: the topic was made anew, so give the app a new name to make its tables "
                    "anew too"
                )
            rebuild = Rebuild(self, ledgers[source], reader, verdict)
            if verdict.new:
                new.append(rebuild)
            elif verdict.losses:
                await rebuild.run()
            positions[source] = max(verdict.position, earliest[source])
        await asyncio.gather(*(rebuild.run() for rebuild in new))
        self.progress.rebuilding = ""
        return positions

    def _found(self, changelog: TP, source: TP, cut: bool, short: bool) -> Found:
        table, store = self._table(changelog.topic), self._store(changelog)
        base = table.rebuilt_from
        begun, position = store.beginning is not None, store.position(source.topic)
        return Found(begun, position, cut, short, None if base is None else base.name)

    def rebuilt(self, what: str, records: int) -> None:
        """Say how far a rebuild is."""
        progress = self.progress
        if progress.rebuilding != what:
            self.progress = progress = Progress(rebuilding=what)
        progress.done = progress.total = records

    def _overruled(self, generation_id: int) -> bool:
        # The count moves when partitions are revoked, the generation only when they are assigned again.
        newer = self.app.consumer_generation_id != generation_id or self.app.rebalancing_count != self._rebalance
        if newer:
            self.log.info("a newer rebalance has begun: leaving the rest to it")
        return newer

    async def _resume(self, positions: dict[TP, int], generation_id: int) -> None:
        """Let the streams run again, in the one order that is safe."""
        app, consumer = self.app, self.app.consumer
        # 1. Tables are complete: tell them.
        await app.on_rebalance_complete.send()
        # 2. Seek while the source partitions are still paused.
        await consumer.begin_at(positions)
        await app._fetcher.maybe_start()
        if self._overruled(generation_id):
            return
        # 3. Empty the queues, then let records in.
        self.in_recovery = False
        self.completed.set()
        app.flow_control.resume()
        consumer.resume_partitions(set(positions))
        consumer.resume_flow()
        # 4. Only now may the web views answer.
        self.tables.on_actives_ready()
        app.on_rebalance_end()
        # 5. The consumer's thread may have begun a rebalance in between: then all of that was too early.
        if self._overruled(generation_id):
            consumer.stop_flow()
            app.flow_control.suspend()
            app.rebalancing = True
            self.tables.on_rebalance_start()
            return
        self.log.info("Worker ready")

    async def _follow(self, reader: AIOKafkaConsumer, standbys: Iterable[TP]) -> None:
        """Keep the standbys as their changelogs are, until the next rebalance."""
        standbys = list(standbys)
        if not standbys:
            return
        reader.assign(standbys)
        for tp in standbys:
            reader.seek(tp, self._store(tp).offset)
        self.tables.on_standbys_ready()
        while True:
            await self._read(reader, standbys)
