"""Faust's consumer for chunks: delivery, committed offsets, and the change of owners."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

from chunks.app import ChunkedApp
from chunks.errors import GroupUnavailable
from chunks.fetch import fetch_ranges, high_watermark, tune_consumer
from chunks.group_metadata import tolerate_foreign_members
from chunks.records import CHUNK_RECORDS, RecordRange

#: How often the state of the group is checked, and the time within which a second error of the
#: group is fatal (s).
GROUP_CHECK_INTERVAL_S, GROUP_ERROR_WINDOW_S = 1.0, 60.0
#: Time between two checks whether a background topic can be fetched again, in seconds.
BACKGROUND_POLL_S = 0.02


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Replaces: one object per record, and fetches of idle partitions that block all others."""

    app: ChunkedApp
    _group_error_at = -math.inf

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        """Create the consumer with the engine's options.

        Replaces: a group that is always named as the app's id.
        """
        tolerate_foreign_members()
        consumer = tune_consumer(super()._create_worker_consumer(transport))
        if self.app.tables.group_id is not None:
            consumer._group_id = self.app.tables.group_id  # noqa: SLF001 - Faust has no setting for the group
        return consumer

    async def _fetch_records(
        self, consumer: AIOKafkaConsumer, active_partitions: set[TP], timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TP, list[RecordRange]]:  # fmt: skip
        """Fetch record ranges. Replaces: `getmany`, which creates an object for each record."""
        if not self.consumer.flow_active:
            return {}
        self._pause_background(consumer, active_partitions)
        return await fetch_ranges(consumer, active_partitions, timeout or 0, CHUNK_RECORDS)

    def high_watermark(self, tp: TP) -> int | None:
        """Return the end offset of a partition at its last fetch; None if it is unknown."""
        return None if self._consumer is None else high_watermark(self._consumer, tp)

    async def committed(self, tp: TP) -> int | None:
        """Return the offset that the group has committed; None if it has committed none."""
        offset: int | None = await self.call_thread(self._ensure_consumer().committed, TopicPartition(*tp))
        return offset

    async def check_group(self) -> None:
        """Raise GroupUnavailable if this worker could not join its group or was removed."""
        await self.call_thread(self._check_group)

    async def _check_group(self) -> None:
        consumer = self._ensure_consumer()
        try:
            consumer._coordinator.check_errors()  # noqa: SLF001 - aiokafka calls it in each of its own fetches
        except Exception as exc:
            # aiokafka tries again after this call.
            previous, self._group_error_at = self._group_error_at, time.monotonic()
            if self._group_error_at - previous > GROUP_ERROR_WINDOW_S:
                self.log.warning("joining the group %s again after an error: %r", consumer._group_id, exc)  # noqa: SLF001
                return
            raise GroupUnavailable(
                f"the group {consumer._group_id} cannot be joined or was lost ({exc!r}): if workers of another "  # noqa: SLF001
                "version run in it, or one with the same instance id, stop them; then start this one again"
            ) from exc

    def rejoin(self) -> None:
        """Request a rebalance."""
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001 - aiokafka has no public method for it
        self.thread_loop.call_soon_threadsafe(coordinator.request_rejoin)

    def _pause_background(self, consumer: AIOKafkaConsumer, active_partitions: set[TP]) -> None:
        # Records that aiokafka has fetched and nobody takes block the other partitions of their
        # broker. This uses aiokafka's own objects: it refuses Faust's TPs, and `&` takes elements
        # from either set.
        paused = consumer.paused()
        for tp in consumer.assignment():
            if tp.topic in self.app.tables.background_topics and (tp in paused) == (tp in active_partitions):
                (consumer.resume if tp in paused else consumer.pause)(tp)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Pause the changelogs first.

        Replaces: Faust's own pause, which does not stop the fetches.
        """
        if self._is_ending():
            return
        consumer = self._ensure_consumer()
        changelogs = self.app.tables.changelog_topics
        consumer.pause(*(tp for tp in consumer.assignment() if tp.topic in changelogs))
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let the app give up its partitions, unless it has.

        Replaces: a call that a stopping app never answers.
        """
        if not self._is_ending():
            await super().on_partitions_revoked(revoked)

    def _is_ending(self) -> bool:
        return bool(self.app.should_stop or self.consumer.should_stop)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing.

        Replaces: warnings about idle partitions; the changelogs are not read by this consumer.
        """


class Consumer(driver.Consumer):
    """Replaces: committed offsets that follow acknowledgements.

    Here they follow what the partition tasks made durable.
    """

    app: ChunkedApp
    if TYPE_CHECKING:
        _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fetching = asyncio.Lock()

    def _new_consumer_thread(self) -> ConsumerThread:
        """Create the consumer's thread.

        Replaces: the app's loop type; a uvloop stopped by another thread may abort.
        """
        loop = asyncio.SelectorEventLoop()
        return ConsumerThread(self, loop=self.loop, thread_loop=loop, beacon=self.beacon)

    def high_watermark(self, tp: TP) -> int | None:
        """Return the end offset of a source partition at its last fetch; None if it is unknown."""
        return self._thread.high_watermark(tp)

    async def committed(self, tp: TP) -> int | None:
        """Return the offset that the group has committed in a source partition, or None."""
        return await self._thread.committed(tp)

    def rejoin(self) -> None:
        """Request a rebalance, in which this worker reports a new state."""
        if not self.should_stop:
            self._thread.rejoin()

    @Service.task
    async def _watch_group(self) -> None:
        # aiokafka reports errors of the group in its fetches, and there are none before the group
        # has been joined.
        while not self.should_stop:
            await self.sleep(GROUP_CHECK_INTERVAL_S)
            try:
                await self._thread.check_group()
            except GroupUnavailable as exc:
                await self.crash(exc)

    # -- delivery

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        """Fetch from partitions whose agents can take records.

        Replaces: fetches that go on during an assignment.
        """
        if active_partitions is None:
            partitions = None
        else:
            busy = {topic for topic in self.app.tables.background_topics if self._is_busy(topic)}
            # A copy: partitions that are resumed while the fetch waits must not be part of it.
            partitions = {tp for tp in active_partitions if tp.topic not in busy}
            timeout = min(timeout, BACKGROUND_POLL_S) if busy else timeout
        async with self._fetching:
            return await super()._getmany(partitions, timeout)

    def _is_busy(self, topic: str) -> bool:
        """Return whether a stream of the topic has not taken all delivered records."""
        return any(topic in channel.topics and channel.queue.qsize() for channel in self.app.topics)

    def _to_message(self, tp: TP, record_range: RecordRange) -> ConsumerMessage:
        """Wrap a record range in one message. Replaces: a message for each record."""
        return ConsumerMessage(
            tp.topic, tp.partition, record_range.next - 1,
            None, None, [], None, record_range, None,  # type: ignore[arg-type]  # many records, so no time of its own
            None, None, tp, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Do nothing.

        Replaces: Faust's list of gaps; a partition task detects missing records itself.
        """

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing.

        Replaces: a pause of the partition; a full queue delays the delivery by one chunk at most.
        """

    def on_buffer_drop(self, tp: TP) -> None:
        """Do nothing, see on_buffer_full."""

    # -- committed offsets

    def _filter_tps_with_pending_acks(self, topics: Iterable[TP | str] | None = None) -> Iterator[TP]:
        """Yield the partitions to commit. Replaces: a choice by acknowledged messages."""
        return (tp for tp in self.app.tables.partition_tasks if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        """Return the offset to commit: all records before it are durable.

        Replaces: the acknowledged offset.
        """
        task = self.app.tables.partition_tasks.get(tp)
        return task.durable if task is not None and task.durable else None

    async def wait_empty(self) -> None:
        """Wait until the work of the agents is durable, then commit it.

        Replaces: waiting for acknowledgements.
        """
        if await self.app.tables.settle():
            while await self.maybe_wait_for_commit_to_finish():
                pass
            await self.force_commit()

    # -- change of owners

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Leave nothing behind that could reach Kafka after the records of the next owner.

        Replaces: forgetting acknowledged offsets at each rebalance.

        1. Let no more records in. 2. Wait until the work of the agents is durable, and commit its
        offsets, before the base class forgets them. 3. End recovery and release the producers. 4.
        Record the local offsets for the group.
        """
        if self.assignment() and not self.should_stop:
            # 1.
            self.stop_flow()
            self.app.flow_control.suspend()
            self.app.flow_control.clear()
            # 2.
            await self._run_unless_stopping(self.wait_empty())
            # 3.
            await self.app.tables.recovery.release_partitions()
            # 4.
            self.app.tables.record_local_offsets()
        await super().on_partitions_revoked(revoked)

    async def _run_unless_stopping(self, work: Coroutine[Any, Any, None]) -> None:
        # A stopping consumer's thread waits for this loop: nothing here may wait for the thread for
        # ever.
        task = asyncio.create_task(work)
        while not task.done():
            if self.should_stop:
                task.cancel()
            await asyncio.wait([task], timeout=0.1)
        if not task.cancelled():
            task.result()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Wait for the fetch in progress first.

        Replaces: a late fetch, whose records the seeks would skip.
        """
        async with self._fetching:
            self._read_offset.clear()
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Do nothing.

        Replaces: a seek after each late fetch, which would move a running stream back.
        """

    async def seek_positions(self, positions: Mapping[TP, int]) -> None:
        """Seek the source partitions, which are paused, to the positions of their tables."""
        self._committed_offset.clear()
        if positions:
            await self.seek_wait({TopicPartition(*tp): offset for tp, offset in positions.items()})
        self._read_offset.clear()
