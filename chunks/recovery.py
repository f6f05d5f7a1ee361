"""From an assignment to running streams: fence, restore, rebuild, seek, resume."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from faust.types import TP
from mode import Service

from chunks.app import ChunkedApp
from chunks.client import client_options
from chunks.errors import IncompleteRestore, RecordGap
from chunks.keys import RESTORING_KEY
from chunks.lost import RestoredState, plan_rebuild
from chunks.partition_task import (
    BATCH_BYTES,
    MAX_REQUEST_BYTES,
    TRANSACTION_TIMEOUT_MS,
    PartitionTask,
    shield_until_done,
)
from chunks.rebuild import Rebuild
from chunks.restore import Restore, RestoreProgress, create_changelog_reader
from chunks.store import in_store_thread

#: Time between two checks for brokers, in seconds.
POLL_INTERVAL_S = 0.1


class Recovery(Service):
    """Replaces: recovery through the streams' queues.

    Here the changelogs have a consumer of their own, in chunks.
    """

    def __init__(self, app: ChunkedApp, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.app = app
        self.tables = app.tables
        self.completed = asyncio.Event()
        self.in_recovery = False
        self.progress = RestoreProgress()
        self._work: asyncio.Task[None] | None = None
        self._rebalance = 0
        #: Producers of the partitions that were given up last, and the generation of the group at
        #: that time.
        self._idle_producers: dict[TP, AIOKafkaProducer] = {}
        self._idle_since = 0
        self._generation = 0

    # -- called by Faust

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Do nothing.

        Replaces: flushing the recovery's queues; Consumer.on_partitions_revoked settles everything.
        """

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Start to recover the assigned partitions.

        Replaces: signals to a recovery that runs all the time.
        """
        await self.release_partitions()
        self._rebalance = self.app.rebalancing_count
        self.in_recovery = True
        self._work = asyncio.create_task(self._recover_or_crash(generation_id), name="recovery")

    async def release_partitions(self) -> None:
        """End the recovery in progress and give up all source partitions.

        1. End the recovery, which may open tasks. 2. End the watches: readers must look for the
        next owner. 3. Remove the tasks, so that no stream starts a step, then let their
        transactions end. 4. Keep the producers for the next assignment; stop them if the worker
        stops.
        """
        # 1.
        if self._work is not None:
            work, self._work = self._work, None
            work.cancel()
            await asyncio.wait([work])
        # 2.
        for table in self.tables.values():
            for store in table.stores.values():
                store.watches.end()
        # 3.
        tasks = dict(self.tables.partition_tasks)
        self.tables.partition_tasks.clear()
        if tasks:
            producers = await asyncio.gather(*(task.release() for task in tasks.values()))
            # 4.
            self._idle_producers |= {
                tp: producer for tp, producer in zip(tasks, producers, strict=True) if producer is not None
            }
            self._idle_since = self._generation
        if self.should_stop:
            _, unused = self._take_idle_producers(())
            await asyncio.gather(*(producer.stop() for producer in unused))

    async def on_stop(self) -> None:
        """Give up all source partitions and stop all producers."""
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
        """Complete the tables and let the streams run.

        1. Open the assigned partitions, close the others. 2. Become the only writer: start the
        producers, which aborts open transactions of former owners. 3. Read the changelogs to their
        current ends. 4. Rebuild what the changelogs have lost. 5. Open the tasks at the positions
        of their tables, and resume the streams there.

        A partition that this worker owned in the previous generation cannot have had another owner
        since. So its producer is used again, which shortens the pause of a rebalance.
        """
        actives = self._changelogs(self.app.assignor.assigned_actives())
        standbys = self._changelogs(self.app.assignor.assigned_standbys())
        # 1.
        await self._open_and_close({*actives, *standbys})
        # 2.
        sources = self._sources(actives)
        cache_bytes = self.tables.cache_bytes // max(1, len(sources))
        reusable, unused = self._take_idle_producers(sources if 0 <= generation_id - self._idle_since <= 1 else ())
        tasks = [self._create_task(tp, changelogs, cache_bytes, reusable.get(tp)) for tp, changelogs in sources.items()]
        reader = create_changelog_reader(self.app)
        try:
            try:
                await reader.start()
                await _wait_for_brokers(reader)
                starting = [task.start() for task in tasks if task.tp not in reusable]
                await asyncio.gather(*starting, *(shield_until_done(producer.stop()) for producer in unused))
                # 3.
                self.progress = RestoreProgress()
                restore = Restore(self.app, reader, self.progress)
                lost_start, lost_end = await restore.run(actives, standbys)
                self._require_complete(actives)
                # 4.
                by_source = {task.tp: task for task in tasks}
                positions = await self._rebuild_lost(reader, by_source, sources, lost_start, lost_end)
                # 5.
                for task in tasks:
                    task.open(positions[task.tp])
                self.tables.partition_tasks.update(by_source)
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
        assigned = {(self.tables.table_of(tp.topic), tp.partition) for tp in changelogs}
        for table in self.tables.values():
            for partition in list(table.stores):
                if (table, partition) not in assigned:
                    await table.close(partition)
        await asyncio.gather(*(in_store_thread(table.open, partition) for table, partition in assigned))

    def _sources(self, actives: Iterable[TP]) -> dict[TP, list[TP]]:
        """Return source partition -> the changelog partitions of the tables that it feeds."""
        sources: dict[TP, list[TP]] = {}
        for changelog in actives:
            source = TP(self.tables.table_of(changelog.topic).source_topic, changelog.partition)
            sources.setdefault(source, []).append(changelog)
        return sources

    def _take_idle_producers(
        self, sources: Collection[TP]
    ) -> tuple[dict[TP, AIOKafkaProducer], list[AIOKafkaProducer]]:
        """Return the idle producers of these source partitions, and all other idle producers."""
        producers, self._idle_producers = self._idle_producers, {}
        unused = [producer for tp, producer in producers.items() if tp not in sources]
        return {tp: producer for tp, producer in producers.items() if tp in sources}, unused

    def _create_task(
        self, source: TP, changelogs: list[TP], cache_bytes: int, producer: AIOKafkaProducer | None
    ) -> PartitionTask:
        producer = producer or AIOKafkaProducer(
            **client_options(self.app),
            client_id=f"{self.app.conf.broker_client_id}-{source.topic}-{source.partition}",
            transactional_id=self.tables.transactional_id(source),
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_batch_size=BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
        )
        stores = {self.tables.table_of(tp.topic).name: (tp, self.tables.store(tp)) for tp in changelogs}
        is_background = source.topic in self.tables.background_topics
        crash, headers = self.app.consumer.crash, self.tables.position_headers()
        return PartitionTask(source, stores, producer, cache_bytes, crash, is_background, headers)

    def _require_complete(self, actives: Iterable[TP]) -> None:
        """Raise IncompleteRestore if a restore from a dump was started and not finished."""
        for tp in actives:
            if self.tables.store(tp).get(RESTORING_KEY) is not None:
                raise IncompleteRestore(
                    f"{tp.topic}[{tp.partition}]: a restore of this table has begun and not ended: "
                    "run it again to its end, then start the worker"
                )

    async def _rebuild_lost(
        self, reader: AIOKafkaConsumer, tasks: dict[TP, PartitionTask], sources: dict[TP, list[TP]],
        lost_start: set[TP], lost_end: set[TP],
    ) -> dict[TP, int]:  # fmt: skip
        """Rebuild what the changelogs have lost; return the position of each source partition.

        Raises RecordGap if the tables contain later records than the topic.
        """
        if not sources:
            return {}
        consumer = self.app.consumer
        earliest, ends = await consumer.earliest_offsets(*sources), await consumer.highwaters(*sources)
        positions, new = {}, []
        for source, changelogs in sources.items():
            states = {
                self.tables.table_of(tp.topic).name: self._restored_state(tp, source, tp in lost_start, tp in lost_end)
                for tp in changelogs
            }
            is_complete = all(state.is_complete for state in states.values())
            committed = None if is_complete else await consumer.committed(source)
            plan = plan_rebuild(source.partition, states, committed, earliest[source], ends[source])
            if plan.position > ends[source]:
                raise RecordGap(
                    f"{source.topic}[{source.partition}] ends at {ends[source]}, but the tables contain records up to "
                    f"{plan.position - 1}: the topic was deleted and created again, so give the app a new name to "
                    "rebuild its tables too"
                )
            rebuild = Rebuild(self.tables, tasks[source], reader, plan, self.progress)
            if plan.new:
                new.append(rebuild)
            elif plan.losses:
                await rebuild.run()
            positions[source] = max(plan.position, earliest[source])
        await asyncio.gather(*(rebuild.run() for rebuild in new))
        self.progress.rebuilding = ""
        return positions

    def _restored_state(self, changelog: TP, source: TP, has_lost_start: bool, has_lost_end: bool) -> RestoredState:
        table, store = self.tables.table_of(changelog.topic), self.tables.store(changelog)
        base = None if table.derived_from is None else table.derived_from.name
        has_beginning, position = store.beginning is not None, store.position(source.topic)
        follows_base = table.derived_prefix is not None
        return RestoredState(has_beginning, position, has_lost_start, has_lost_end, base, follows_base)

    def _is_superseded(self, generation_id: int) -> bool:
        # The count changes when partitions are revoked, the generation only when they are assigned
        # again.
        is_superseded = (
            self.app.consumer_generation_id != generation_id or self.app.rebalancing_count != self._rebalance
        )
        if is_superseded:
            self.log.info("a newer rebalance has started: it continues this recovery")
        return is_superseded

    async def _resume(self, positions: dict[TP, int], generation_id: int) -> None:
        """Let the streams run again. Only this order is safe.

        1. Signal that the tables are complete. 2. Seek while the source partitions are still
        paused. 3. Empty the queues, then let records in. 4. Open the web views. 5. Undo 3 and 4 if
        the consumer's thread has started another rebalance meanwhile.
        """
        app, consumer = self.app, self.app.consumer
        # 1.
        await app.on_rebalance_complete.send()
        # 2.
        await consumer.seek_positions(positions)
        await app._fetcher.maybe_start()
        if self._is_superseded(generation_id):
            return
        # 3.
        self.in_recovery = False
        self.completed.set()
        app.flow_control.resume()
        consumer.resume_partitions(set(positions))
        consumer.resume_flow()
        # 4.
        self.tables.on_actives_ready()
        app.on_rebalance_end()
        # 5.
        if self._is_superseded(generation_id):
            consumer.stop_flow()
            app.flow_control.suspend()
            app.rebalancing = True
            self.tables.on_rebalance_start()
            return
        self.log.info("Worker ready")


async def _wait_for_brokers(reader: AIOKafkaConsumer) -> None:
    """Wait until the metadata names brokers; without them a producer cannot start.

    A starting Kafka names none for a moment.
    """
    while not reader._client.cluster.brokers():
        await asyncio.sleep(POLL_INTERVAL_S)
        await reader._client.force_metadata_update()
