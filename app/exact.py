"""The few methods of Faust that Lately replaces, so that no order is lost: each says what it replaces and why.

An offset may be committed only when every record that the events before it caused is safe in Kafka. Stock Faust
commits without that: its flush returns while records are queued, and a refused changelog record is only logged.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

from faust.tables.manager import TableManager as FaustTableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import FutureMessage, Message

from app.errors import NotAcknowledged
from app.frozen import pulse


class Producer(driver.Producer):
    """Replaces: a send whose failure is only logged. Remembers what was sent and not yet acknowledged."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unsettled: set[FutureMessage] = set()
        self._refused: BaseException | None = None
        # Stock Faust stops the stream, with a warning, at 100 queued records.
        self.buffer.max_messages = 5_000

    def send_soon(self, fut: FutureMessage) -> None:
        self._unsettled.add(fut)
        fut.add_done_callback(self._on_settled)
        super().send_soon(fut)

    def _on_settled(self, fut: FutureMessage) -> None:
        self._unsettled.discard(fut)
        if not fut.cancelled() and fut.exception() is not None:
            self._refused = self._refused or fut.exception()

    async def send(self, *args: Any, **kwargs: Any) -> Any:
        pulse.check()
        return await super().send(*args, **kwargs)

    async def settle(self) -> None:
        """Wait until Kafka has acknowledged all that was sent before this call.

        Raises NotAcknowledged when a record was refused, now or at any time before, or can no longer be sent.
        """
        waiting = set(self._unsettled)
        while waiting:
            _, waiting = await asyncio.wait(waiting, timeout=1.0)
            if waiting and (self.buffer.crashed or self.buffer.should_stop):
                raise NotAcknowledged(f"{len(waiting)} records could not be sent before the producer stopped")
        if self._refused is not None:
            raise NotAcknowledged(f"Kafka refused a record: {self._refused!r}; nothing after it is committed")


class Consumer(driver.Consumer):
    """Replaces: committing what may not be durable or was never processed, and fetches that outlive a rebalance.

    An offset is committed only when every record delivered before it, since the last seek, has been acknowledged.
    Stock Faust reasons with gaps instead: it passes a record that a rebalance dropped from a queue.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fetching = asyncio.Lock()
        self._delivered: dict[TP, deque[int]] = defaultdict(deque)
        self._deliver_to_agents = self.callback
        self.callback = self._deliver

    async def _deliver(self, message: Message) -> None:
        if not self._is_changelog_tp(message.tp):
            self._delivered[message.tp].append(message.offset)
        await self._deliver_to_agents(message)

    def _new_offset(self, tp: TP) -> int | None:
        delivered, acked = self._delivered[tp], self._acked_index[tp]
        self._acked[tp].clear()  # the same offsets as a list, which only the stock arithmetic needs
        newest = None
        while delivered and delivered[0] in acked:
            newest = delivered.popleft()
            acked.discard(newest)
        return None if newest is None else newest + 1

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        return None  # gaps matter only to the arithmetic replaced above

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        # 1. Everything that the acknowledged records caused is in Kafka …
        if not await self._all_acknowledged():
            return False
        # 2. … and only then their offsets move.
        return await super()._commit_offsets(offsets, start_new_transaction)

    async def _all_acknowledged(self) -> bool:
        try:
            await self.app.producer.settle()
        except NotAcknowledged as exc:
            await self.crash(exc)
            return False
        return True

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        # A copy: partitions that are resumed while the fetch waits must not be part of it.
        wanted = None if active_partitions is None else set(active_partitions)
        async with self._fetching:
            return await super()._getmany(wanted, timeout)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Leave nothing behind that could reach Kafka after the next owner's records.

        1. Let no more records in, and wait until the agents have finished those they have. 2. Let a commit that is
        under way end. 3. Wait for the acknowledgement of all that was sent. 4. Commit all of it, before the base class
        forgets what was acknowledged.
        """
        if self.assignment() and not self.should_stop:
            # 1.
            self.stop_flow()
            self.app.flow_control.suspend()
            self.app.flow_control.clear()
            await self.wait_empty()
            # 2.
            while await self.maybe_wait_for_commit_to_finish():
                pass
            # 3.
            if await self._all_acknowledged():
                # 4.
                await self.force_commit()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Begin anew, once no fetch of the time before is under way: its records would be lost to the seeks."""
        async with self._fetching:
            self._delivered.clear()
            self._acked_index.clear()
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Do nothing: stock Faust also seeks when a fetch comes back late, and that would go back in mid-stream."""

    async def seek_to_work(self) -> None:
        """Seek all source partitions to where the group left off; only recovery does this, while they are paused."""
        await super().perform_seek()
        # aiokafka leaves a partition without a committed offset wherever an earlier fetch has taken it.
        never_committed = {
            tp for tp in self.assignment() if not self._is_changelog_tp(tp) and not self._committed_offset[tp]
        }
        if never_committed:
            await self.seek_wait(await self.earliest_offsets(*never_committed))


class Transport(driver.Transport):
    """Faust's aiokafka transport with the two classes above."""

    Consumer = Consumer
    Producer = Producer


class SafeRecovery(Recovery):
    """Replaces: resuming the streams before seeking, and going on although the next rebalance has begun."""

    _rebalance = 0

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Remember to which rebalance the recovery belongs."""
        self._rebalance = self.app.rebalancing_count
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    def _overruled(self, generation_id: int) -> bool:
        # The count moves when partitions are revoked, the generation only when they are assigned again.
        newer = self.app.consumer_generation_id != generation_id or self.app.rebalancing_count != self._rebalance
        if newer:
            self.log.info("a newer rebalance has begun: leaving the rest to it")
        return newer

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        """Let the streams run again, in the one order that is safe."""
        app, consumer = self.app, self.app.consumer
        # 1. Tables are complete: tell them.
        await app.on_rebalance_complete.send()
        self._set_recovery_ended()
        for table in self.tables.values():
            await table.on_recovery_completed(self.actives_for_table[table], self.standbys_for_table[table])
        # 2. Seek while the source partitions are still paused.
        assignment = consumer.assignment()
        if assignment:
            await self._wait(consumer.seek_to_work(), timeout=app.conf.broker_request_timeout)
        await app._fetcher.maybe_start()
        if self._overruled(generation_id):
            return
        # 3. Empty the queues, then let records in.
        self.completed.set()
        app.flow_control.resume()
        consumer.resume_partitions({tp for tp in assignment if not self._is_changelog_tp(tp)})
        consumer.resume_flow()
        # 4. Only now may the web views answer.
        self.tables.on_actives_ready()
        if not app.assignor.assigned_standbys():
            self.tables.on_standbys_ready()
        app.on_rebalance_end()
        # 5. The consumer's thread may have begun a rebalance in between: then all of that was too early.
        if self._overruled(generation_id):
            consumer.stop_flow()
            app.flow_control.suspend()
            app.rebalancing = True
            self.tables.on_rebalance_start()
            return
        self.log.info("Worker ready")


class TableManager(FaustTableManager):
    """Faust's table manager with the recovery above."""

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = SafeRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
