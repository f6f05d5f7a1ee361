"""Faust's consumer, for chunks: what is delivered, what is committed, and what happens between two owners."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

from chunks.errors import GroupUnavailable
from chunks.fetch import fetch_ranges, high_watermark, tune_consumer
from chunks.records import CHUNK_RECORDS, RecordRange

#: How often to ask whether the group is well, and within which time a second trouble with it is one too many (s).
HEAR_EVERY_S, TROUBLE_S = 1.0, 60.0
#: How soon to look again whether a background topic can go on, in seconds.
BACKGROUND_POLL_S = 0.02


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Replaces: one object per record, a fetch of idle partitions that holds up the others for 1.5 s, and the group."""

    _trouble_at = -math.inf

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        consumer = tune_consumer(super()._create_worker_consumer(transport))
        if self.app.tables.group_id is not None:
            consumer._group_id = self.app.tables.group_id  # noqa: SLF001 - Faust knows no group but the app's id
        return consumer

    async def _fetch_records(
        self, consumer: AIOKafkaConsumer, active_partitions: set[TP], timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TP, list[RecordRange]]:  # fmt: skip
        if not self.consumer.flow_active:
            return {}
        self._pause_background(consumer, active_partitions)
        return await fetch_ranges(consumer, active_partitions, timeout or 0, CHUNK_RECORDS)

    def high_watermark(self, tp: TP) -> int | None:
        """Where a partition ended when it was last fetched, None where that is not known."""
        return None if self._consumer is None else high_watermark(self._consumer, tp)

    async def committed(self, tp: TP) -> int | None:
        """The offset that the group has committed, None where there is none."""
        return await self.call_thread(self._ensure_consumer().committed, TopicPartition(*tp))

    async def hear_of_the_group(self) -> None:
        """Raise NoGroup for what has kept this worker from joining its group, or ended its part in it."""
        await self.call_thread(self._demand_group)

    async def _demand_group(self) -> None:
        consumer = self._ensure_consumer()
        try:
            consumer._coordinator.check_errors()  # noqa: SLF001 - each fetch of aiokafka's own asks that
        except Exception as exc:
            # It tries again once it was asked.
            before, self._trouble_at = self._trouble_at, time.monotonic()
            if self._trouble_at - before > TROUBLE_S:
                self.log.warning("trying once more to join the group %s: %r", consumer._group_id, exc)  # noqa: SLF001
                return
            raise GroupUnavailable(
                f"the group {consumer._group_id} cannot be joined or was lost ({exc!r}): if workers of another "  # noqa: SLF001
                "version run in it, or one with the same instance id, stop them; then start this one again"
            ) from exc

    def rejoin(self) -> None:
        """Ask for another rebalance."""
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001 - aiokafka has no other way to ask for it
        self.thread_loop.call_soon_threadsafe(coordinator.request_rejoin)

    def _pause_background(self, consumer: AIOKafkaConsumer, active_partitions: set[TP]) -> None:
        # What aiokafka has fetched and nobody takes would hold up the other partitions of its broker.
        # Its own objects: it refuses Faust's, though they are equal, and of two sets & takes them from either.
        paused = consumer.paused()
        for tp in consumer.assignment():
            if tp.topic in self.app.tables.background_topics and (tp in paused) == (tp in active_partitions):
                (consumer.resume if tp in paused else consumer.pause)(tp)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Fetch nothing of the changelogs here: Faust's own pausing only keeps what was fetched."""
        if self._is_ending():
            return
        consumer = self._ensure_consumer()
        changelogs = self.app.tables.changelog_topics
        consumer.pause(*(tp for tp in consumer.assignment() if tp.topic in changelogs))
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Ask the app to give its partitions up, unless it has: it may wait for the end of this thread by then."""
        if not self._is_ending():
            await super().on_partitions_revoked(revoked)

    def _is_ending(self) -> bool:
        return self.app.should_stop or self.consumer.should_stop

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: stock Faust warns of partitions that stand still, and changelogs are read elsewhere here."""


class Consumer(driver.Consumer):
    """Replaces: offsets that are committed by what was acknowledged. Here they follow what the tasks made durable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fetching = asyncio.Lock()

    def _new_consumer_thread(self) -> ConsumerThread:
        # asyncio's own loop, whatever the app's is: a uvloop that is stopped from another thread may end the process.
        loop = asyncio.SelectorEventLoop()
        return ConsumerThread(self, loop=self.loop, thread_loop=loop, beacon=self.beacon)

    def high_watermark(self, tp: TP) -> int | None:
        """Where a source partition ended when it was last fetched, None where that is not known."""
        return self._thread.high_watermark(tp)

    async def committed(self, tp: TP) -> int | None:
        """The offset that the group has committed in a source partition, None where there is none."""
        return await self._thread.committed(tp)

    def rejoin(self) -> None:
        """Ask for another rebalance, because this worker has something by now that others should know of."""
        if not self.should_stop:
            self._thread.rejoin()

    @Service.task
    async def _hear_of_the_group(self) -> None:
        # aiokafka tells nobody but who fetches, which here is not done before the group has been joined.
        while not self.should_stop:
            await self.sleep(HEAR_EVERY_S)
            try:
                await self._thread.hear_of_the_group()
            except GroupUnavailable as exc:
                await self.crash(exc)

    # -- delivering

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        if active_partitions is None:
            wanted = None
        else:
            busy = {topic for topic in self.app.tables.background_topics if self._is_busy(topic)}
            # A copy: partitions that are resumed while the fetch waits must not be part of it.
            wanted = {tp for tp in active_partitions if tp.topic not in busy}
            timeout = min(timeout, BACKGROUND_POLL_S) if busy else timeout
        async with self._fetching:
            return await super()._getmany(wanted, timeout)

    def _is_busy(self, topic: str) -> bool:
        """Whether a stream of the topic has yet to take what was delivered."""
        return any(topic in channel.topics and channel.queue.qsize() for channel in self.app.topics)

    def _to_message(self, tp: TP, run: RecordRange) -> ConsumerMessage:
        return ConsumerMessage(
            tp.topic, tp.partition, run.next - 1, None, None, [], None, run, None, None, None, tp,
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        return None  # the tasks know what is missing

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: a full queue makes the delivery wait, and one chunk later it goes on."""

    def on_buffer_drop(self, tp: TP) -> None:
        """Do nothing, see on_buffer_full."""

    # -- committing

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self.app.tables.partition_tasks if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        task = self.app.tables.partition_tasks.get(tp)
        return task.durable if task is not None and task.durable else None

    async def wait_empty(self) -> None:
        """Wait until all that the agents have begun is durable, then commit it."""
        if await self.app.tables.settle():
            while await self.maybe_wait_for_commit_to_finish():
                pass
            await self.force_commit()

    # -- between two owners

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Leave nothing behind that could reach Kafka after the next owner's records.

        1. Let no more records in. 2. Wait until what the agents have begun is durable, and commit it, before the base
        class forgets what to commit. 3. End recovery and give up the producers. 4. Note for the group how far it got.
        """
        if self.assignment() and not self.should_stop:
            # 1.
            self.stop_flow()
            self.app.flow_control.suspend()
            self.app.flow_control.clear()
            # 2.
            await self._unless_stopping(self.wait_empty())
            # 3.
            await self.app.tables.recovery.leave()
            # 4.
            self.app.tables.record_local_offsets()
        await super().on_partitions_revoked(revoked)

    async def _unless_stopping(self, work: Coroutine[Any, Any, None]) -> None:
        # The consumer's thread, which ends by then, waits for this loop: nothing here may wait for it for ever.
        task = asyncio.create_task(work)
        while not task.done():
            if self.should_stop:
                task.cancel()
            await asyncio.wait([task], timeout=0.1)
        if not task.cancelled():
            task.result()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Begin anew, once no fetch of the time before is under way: its records would be lost to the seeks."""
        async with self._fetching:
            self._read_offset.clear()
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Do nothing: stock Faust also seeks when a fetch comes back late, and that would go back in mid-stream."""

    async def begin_at(self, positions: Mapping[TP, int]) -> None:
        """Seek the source partitions, while they are paused, to where their state ends."""
        self._committed_offset.clear()
        if positions:
            await self.seek_wait({TopicPartition(*tp): offset for tp, offset in positions.items()})
        self._read_offset.clear()
