"""From an assignment to running streams: fence, restore, judge and make anew, seek, resume."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from faust.types import TP, AppT
from mode import Service

from chunks.client import client_options
from chunks.errors import IncompleteRestore, RecordGap
from chunks.lost import RestoredState, plan_rebuild
from chunks.partition_task import (
    BATCH_BYTES,
    MAX_REQUEST_BYTES,
    TRANSACTION_TIMEOUT_MS,
    PartitionTask,
    shield_until_done,
)
from chunks.rebuild import Rebuild
from chunks.restore import Restore, RestoreProgress, changelog_reader
from chunks.store import RESTORING_KEY, in_store_thread

#: How soon to ask again for what is about to come, in seconds.
POLL_INTERVAL_S = 0.1


class Recovery(Service):
    """Replaces: recovery through the streams' queues. The changelogs have a consumer of their own, in chunks."""

    def __init__(self, app: AppT, tables: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.app = app
        self.tables = tables
        self.completed = asyncio.Event()
        self.in_recovery = False
        self.progress = RestoreProgress()
        self._work: asyncio.Task | None = None
        self._rebalance = 0
        #: The producers of the partitions that were given up last, and the group's generation in which that was.
        self._idle_producers: dict[TP, AIOKafkaProducer] = {}
        self._idle_since = 0
        self._generation = 0

    # -- called by Faust

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Do nothing: the consumer has settled the tasks and left before."""

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Begin to recover what is assigned now."""
        await self.release_partitions()
        self._rebalance = self.app.rebalancing_count
        self.in_recovery = True
        self._work = asyncio.create_task(self._recover_or_crash(generation_id), name="recovery")

    async def release_partitions(self) -> None:
        """End whatever is under way and give up all source partitions."""
        if self._work is not None:
            work, self._work = self._work, None
            work.cancel()
            await asyncio.wait([work])
        for table in self.tables.values():
            for store in table.stores.values():
                store.watches.end()
        tasks = dict(self.tables.partition_tasks)
        self.tables.partition_tasks.clear()
        if tasks:
            released = await asyncio.gather(*(task.release() for task in tasks.values()))
            self._idle_producers |= {tp: one for tp, one in zip(tasks, released, strict=True) if one is not None}
            self._idle_since = self._generation
        if self.should_stop:
            _, kept = self._take_idle_producers(())
            await asyncio.gather(*(producer.stop() for producer in kept))

    async def on_stop(self) -> None:
        """Leave, and give up all producers."""
        await self.release_partitions()

    # -- the work

    async def _recover_or_crash(self, generation_id: int) -> None:
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

        Of a partition that was this worker's in the generation before nobody else can be the owner since: its producer
        goes on, which makes the pause of a rebalance shorter.
        """
        actives = self._changelogs(self.app.assignor.assigned_actives())
        standbys = self._changelogs(self.app.assignor.assigned_standbys())
        # 1.
        await self._open_and_close({*actives, *standbys})
        # 2.
        sources = self._sources(actives)
        share = self.tables.cache_bytes // max(1, len(sources))
        kept, others = self._take_idle_producers(sources if 0 <= generation_id - self._idle_since <= 1 else ())
        tasks = [self._create_task(tp, changelogs, share, kept.get(tp)) for tp, changelogs in sources.items()]
        reader = changelog_reader(self.app)
        try:
            try:
                await reader.start()
                await _wait_for_brokers(reader)
                starting = [one.start() for one in tasks if one.tp not in kept]
                await asyncio.gather(*starting, *(shield_until_done(producer.stop()) for producer in others))
                # 3.
                self.progress = RestoreProgress()
                restore = Restore(self.app, reader, self.progress)
                cut, short = await restore.run(actives, standbys)
                self._require_complete(actives)
                # 4.
                positions = await self._rebuild_lost(reader, {one.tp: one for one in tasks}, sources, cut, short)
                # 5.
                for task in tasks:
                    task.open(positions[task.tp])
                self.tables.partition_tasks.update((task.tp, task) for task in tasks)
                self._generation = generation_id
                tasks.clear()
                await self._resume(positions, generation_id)
                await restore.follow(standbys, self.app.assignor.warmup)
            finally:
                await reader.stop()
        finally:
            await asyncio.gather(*(task.close() for task in tasks))

    def _changelogs(self, tps: Iterable[TP]) -> list[TP]:
        return sorted(TopicPartition(*tp) for tp in tps if tp.topic in self.tables.changelog_topics)

    async def _open_and_close(self, changelogs: set[TP]) -> None:
        wanted = {(self.tables.table_of(tp.topic), tp.partition) for tp in changelogs}
        for table in self.tables.values():
            for partition in list(table.stores):
                if (table, partition) not in wanted:
                    await table.close(partition)
        await asyncio.gather(*(in_store_thread(table.open, partition) for table, partition in wanted))

    def _sources(self, actives: Iterable[TP]) -> dict[TP, list[TP]]:
        """Source partition -> the changelog partitions of the tables that it feeds."""
        sources: dict[TP, list[TP]] = {}
        for changelog in actives:
            source = TP(self.tables.table_of(changelog.topic).source_topic, changelog.partition)
            sources.setdefault(source, []).append(changelog)
        return sources

    def _take_idle_producers(
        self, sources: Collection[TP]
    ) -> tuple[dict[TP, AIOKafkaProducer], list[AIOKafkaProducer]]:
        """The producers that were kept for these, and those that nobody needs any more."""
        kept, self._idle_producers = self._idle_producers, {}
        others = [producer for tp, producer in kept.items() if tp not in sources]
        return {tp: producer for tp, producer in kept.items() if tp in sources}, others

    def _create_task(
        self, source: TP, changelogs: list[TP], cache_bytes: int, producer: AIOKafkaProducer | None
    ) -> PartitionTask:  # fmt: skip
        producer = producer or AIOKafkaProducer(
            **client_options(self.app),
            client_id=f"{self.app.conf.broker_client_id}-{source.topic}-{source.partition}",
            transactional_id=self.tables.transactional_id(source),
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_batch_size=BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
        )
        stores = {self.tables.table_of(tp.topic).name: (tp, self.tables.store(tp)) for tp in changelogs}
        patient = source.topic in self.tables.background_topics
        crash, stamp = self.app.consumer.crash, self.tables.position_headers()
        return PartitionTask(source, stores, producer, cache_bytes, crash, patient, stamp)

    def _require_complete(self, actives: Iterable[TP]) -> None:
        """Raise HalfRestored where a restore from a dump has begun and not ended."""
        for tp in actives:
            if self.tables.store(tp).get(RESTORING_KEY) is not None:
                raise IncompleteRestore(
                    f"{tp.topic}[{tp.partition}]: a restore of this table has begun and not ended: "
                    "run it again to its end, then start the worker"
                )

    async def _rebuild_lost(
        self, reader: AIOKafkaConsumer, tasks: dict[TP, PartitionTask], sources: dict[TP, list[TP]], cut: set[TP],
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
            found = {
                self.tables.table_of(tp.topic).name: self._restored_state(tp, source, tp in cut, tp in short)
                for tp in changelogs
            }
            committed = None if all(one.is_complete for one in found.values()) else await consumer.committed(source)
            verdict = plan_rebuild(source.partition, found, committed, earliest[source], ends[source])
            if verdict.position > ends[source]:
                raise RecordGap(
                    f"{source.topic}[{source.partition}] ends at {ends[source]}, but the tables contain records up to "
                    f"{verdict.position - 1}: the topic was made anew, so give the app a new name to make its tables "
                    "anew too"
                )
            rebuild = Rebuild(self.tables, tasks[source], reader, verdict, self.progress)
            if verdict.new:
                new.append(rebuild)
            elif verdict.losses:
                await rebuild.run()
            positions[source] = max(verdict.position, earliest[source])
        await asyncio.gather(*(rebuild.run() for rebuild in new))
        self.progress.rebuilding = ""
        return positions

    def _restored_state(self, changelog: TP, source: TP, cut: bool, short: bool) -> RestoredState:
        table, store = self.tables.table_of(changelog.topic), self.tables.store(changelog)
        base = table.derived_from
        begun, position = store.beginning is not None, store.position(source.topic)
        return RestoredState(begun, position, cut, short, None if base is None else base.name)

    def _is_superseded(self, generation_id: int) -> bool:
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
        if self._is_superseded(generation_id):
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
        if self._is_superseded(generation_id):
            consumer.stop_flow()
            app.flow_control.suspend()
            app.rebalancing = True
            self.tables.on_rebalance_start()
            return
        self.log.info("Worker ready")


async def _wait_for_brokers(reader: AIOKafkaConsumer) -> None:
    """Wait until Kafka names brokers: one that wakes up names none for a moment, and a producer's start fails then."""
    while not reader._client.cluster.brokers():
        await asyncio.sleep(POLL_INTERVAL_S)
        await reader._client.force_metadata_update()
