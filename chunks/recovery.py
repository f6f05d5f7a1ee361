"""From an assignment to running streams: fence, restore, seek, resume; and standbys that follow their changelogs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from faust.transport.drivers.aiokafka import server_list
from faust.types import TP, AppT
from mode import Service

from chunks.errors import Gap
from chunks.fetch import fetch, tune
from chunks.ledger import BATCH_BYTES, MAX_REQUEST_BYTES, TRANSACTION_TIMEOUT_MS, Ledger
from chunks.store import Store, off_loop

#: Changelog records that are applied in one batch.
RESTORE_RECORDS = 5_000
FETCH_BYTES = 4 * 2**20
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
        4. Each source partition goes on where its state ends.
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
                await self._restore(reader, actives, standbys)
                # 4.
                positions = await self._positions(sources)
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

    def _reader(self) -> AIOKafkaConsumer:
        return tune(
            AIOKafkaConsumer(
                bootstrap_servers=server_list(self.app.transport.url, self.app.transport.default_port),
                client_id=f"{self.app.conf.broker_client_id}-changelogs",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=FETCH_BYTES,
            )
        )

    async def _restore(self, reader: AIOKafkaConsumer, actives: Iterable[TP], standbys: Iterable[TP]) -> None:
        changelogs = [*actives, *standbys]
        self.progress = Progress()
        if not changelogs:
            return
        ends = await reader.end_offsets(changelogs)
        reader.assign(changelogs)
        for tp in changelogs:
            store = self._store(tp)
            await self._wipe_if_unfit(tp, store, ends[tp])
            reader.seek(tp, store.offset)
        missing = {tp: ends[tp] for tp in actives if self._store(tp).offset < ends[tp]}
        self.progress.total = sum(end - self._store(tp).offset for tp, end in missing.items())
        self.log.info("restoring %s records of %s changelog partitions", self.progress.total, len(missing))
        self.progress.started = time.monotonic()
        logged = time.monotonic()
        while missing:
            for tp, offset in (await self._read(reader, changelogs)).items():
                if offset >= missing.get(tp, offset + 1):
                    del missing[tp]
            left = sum(end - self._store(tp).offset for tp, end in missing.items())
            self.progress.done = self.progress.total - left
            if missing and time.monotonic() - logged > LOG_EVERY_S:
                logged = time.monotonic()
                progress = self.progress
                self.log.info("restored %s of %s records, %s/s", progress.done, progress.total, progress.rate)
        self.progress.done, self.progress.ended = self.progress.total, time.monotonic()
        self.log.info(
            "restored %s records in %.2f s, %s/s", self.progress.total, self.progress.seconds, self.progress.rate
        )

    async def _wipe_if_unfit(self, tp: TP, store: Store, end: int) -> None:
        if store.offset > end:
            why = f"it is at {store.offset}, but the changelog ends at {end}: that was made anew"
        elif store.age_s > MAX_AGE_S:
            why = f"it was left alone for {store.age_s / 3600:.0f} h: the changelog may have forgotten deletions since"
        else:
            return
        self.log.warning("%s[%s]: the table on disk is made anew, %s", tp.topic, tp.partition, why)
        await off_loop(store.wipe)

    async def _read(self, reader: AIOKafkaConsumer, changelogs: Iterable[TP]) -> dict[TP, int]:
        """Apply what has arrived; the offset reached by each partition that moved."""
        runs = await fetch(reader, set(changelogs), 1.0, RESTORE_RECORDS)
        moved = {}
        for tp, parts in runs.items():
            store = self._store(tp)
            for run in parts:
                records = [(key, value) for _, key, value in run.records]
                await off_loop(store.apply, records, run.next)
            moved[tp] = parts[-1].next
        return moved

    async def _positions(self, sources: dict[TP, list[TP]]) -> dict[TP, int]:
        """Where each source partition goes on: after what its state contains, or at its beginning.

        Raises Gap when the state contains more than the topic has.
        """
        if not sources:
            return {}
        consumer = self.app.consumer
        earliest, ends = await consumer.earliest_offsets(*sources), await consumer.highwaters(*sources)
        positions = {}
        for source, changelogs in sources.items():
            known = [self._store(tp).position(source.topic) for tp in changelogs]
            position = max((one for one in known if one is not None), default=0)
            if position > ends[source]:
                raise Gap(
                    f"{source.topic}[{source.partition}] ends at {ends[source]}, but the tables contain records up to "
                    f"{position - 1}: the topic was made anew, so give the app a new name to make its tables anew too"
                )
            if 0 < position < earliest[source]:
                self.log.error(
                    "%s[%s]: records %s to %s were deleted by the topic's retention before they were read",
                    source.topic, source.partition, position, earliest[source] - 1,
                )  # fmt: skip
            positions[source] = max(position, earliest[source])
        return positions

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
