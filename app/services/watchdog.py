"""A worker that is stuck says so, and ends with 70 so that its supervisor starts it anew.

Stuck is what has work and does not move although Kafka answers: a partition, or the recovery. Whether there is work is
asked of Kafka itself: a consumer that has stopped fetching knows of none. A Kafka that does not answer and a source
that is silent have limits of their own, and by default end no worker: what it has is right, only old, and all workers
would end at once for what a new start does not mend.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP
from mode import Service

from app import metrics
from app.core import app, settings
from app.freeze_guard import EX_SOFTWARE
from app.kafka.client import client
from app.services import throttle
from app.services.source_status import source_view
from app.services.stall_detector import (
    KAFKA_AWAY,
    NO_PROGRESS,
    OWN,
    REASONS,
    RECOVERY_STALLED,
    SOURCE_SILENT,
    Detector,
    Limits,
    Stuck,
    Work,
)
from app.topics import Topics

#: Looks within the shortest limit, and the longest time between two (s).
LOOKS, LONGEST_PAUSE_S = 12, 5.0
#: How long Kafka may take to say where topics end.
PATIENCE_S = 5.0
BEATS_PER_LIMIT = 20
#: How long the last line of the log may take.
LAST_LINE_S = 1.0

log = logging.getLogger(__name__)


class Watchdog(Service):
    """Looks every few seconds, as long as the worker runs; `stuck` is what it saw last."""

    def __init__(self, own: Limits, others: Limits, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.stuck: list[Stuck] = []
        self._shortest_s = min(filter(None, (own.first_s, others.first_s)), default=0.0)
        self._own = own
        self._detector = Detector(own, others)
        self._consumer: AIOKafkaConsumer | None = None
        self._state = TP(Topics(settings).source_state.name, 0)
        self._turns = 0

    @Service.task
    async def _watch(self) -> None:
        if self._own.end_s:
            threading.Thread(target=self._guard_loop, name="watchdog", daemon=True).start()
        while self._shortest_s and not app.should_stop:
            await self._look()
            await self.sleep(min(LONGEST_PAUSE_S, self._shortest_s / LOOKS))

    async def on_stop(self) -> None:
        """Give the consumer up."""
        await self._give_up()

    async def _look(self) -> None:
        """See what stands still, say it, and end the process where it has lasted for too long."""
        ends = await self._ends({self._state, *self._read_here()})
        before = {one.name for one in self.stuck}
        self.stuck = self._detector.look(time.monotonic(), dict(self._works(ends)))
        for reason in REASONS:
            metrics.STUCK.labels(reason).set(any(one.reason == reason for one in self.stuck))
        for one in self.stuck:
            if one.overdue and not app.should_stop:
                _end(one.reason, str(one))
            if one.name not in before:
                self.log.error("stuck, %s: %s%s", one.reason, one, _what_follows(one))
        for name in sorted(before - {one.name for one in self.stuck}):
            self.log.warning("not stuck any more: %s", name)

    def _read_here(self) -> Iterable[TP]:
        return app.tables.ledgers or app.assignor.assigned_actives()

    def _works(self, ends: dict[TP, int]) -> Iterable[tuple[str, Work]]:
        """What this worker has to do, as far as it is known where topics end."""
        reached = bool(ends)
        yield "kafka", Work(None, not reached, KAFKA_AWAY, f"no answer from {settings.kafka}")
        if not reached:
            return
        newest = source_view.newest
        if newest is not None and source_view.complete:
            yield "source", Work(newest.at, True, SOURCE_SILENT, "no word from any `lately source`")
        if app.rebalancing or not app.tables.actives_ready:
            if app.assignor.assigned_actives() <= set(ends):
                yield _not_ready()
            return
        for name, tps in self._together().items():
            ledgers = {tp: app.tables.ledgers[tp] for tp in tps if tp in app.tables.ledgers and tp in ends}
            durable = {tp: ledger.durable for tp, ledger in ledgers.items()}
            waiting = sum(max(0, ends[tp] - at) for tp, at in durable.items())
            at = ", ".join(map(str, durable.values()))
            where = f"{name} stands at offset {at}, of {waiting} more nothing was done,"
            token = (*durable.items(), throttle.records[name])
            yield name, Work(token, waiting > 0, NO_PROGRESS, where)

    def _together(self) -> dict[str, list[TP]]:
        """The partitions of which one has to move: of topics that give way to others any, else each by itself."""
        found: dict[str, list[TP]] = {}
        for tp in sorted(app.tables.ledgers):
            name = tp.topic if tp.topic in app.tables.background else f"{tp.topic}[{tp.partition}]"
            found.setdefault(name, []).append(tp)
        return found

    async def _ends(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Where the committed records of partitions end; only those of which Kafka says it."""
        try:
            if self._consumer is None:
                self._consumer = AIOKafkaConsumer(
                    **client(settings), request_timeout_ms=int(PATIENCE_S * 1000),
                    enable_auto_commit=False, isolation_level="read_committed",
                )  # fmt: skip
                await asyncio.wait_for(self._consumer.start(), PATIENCE_S)
            asked = [(tp, asyncio.ensure_future(self._end_of(tp))) for tp in tps]
            await asyncio.wait([task for _, task in asked], timeout=PATIENCE_S)
        except (KafkaError, OSError, asyncio.TimeoutError):
            asked = []
        ends = {tp: task.result() for tp, task in asked if task.done() and task.result() is not None}
        for _, task in asked:
            task.cancel()
        if not ends:
            await self._give_up()
        return ends

    async def _end_of(self, tp: TP) -> int | None:
        try:
            return (await self._consumer.end_offsets([TopicPartition(*tp)])).popitem()[1]
        except (KafkaError, OSError):
            return None

    async def _give_up(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    @Service.task
    async def _turn(self) -> None:
        while self._own.end_s and not app.should_stop:
            self._turns += 1
            await self.sleep(self._own.end_s / BEATS_PER_LIMIT)

    def _guard_loop(self) -> None:
        """End the process when its loop does not turn; beats are counted, so that time asleep is none."""
        turns, beats = self._turns, 0
        while not app.should_stop:
            time.sleep(self._own.end_s / BEATS_PER_LIMIT)
            turns, beats = (self._turns, 0) if self._turns != turns else (turns, beats + 1)
            if beats >= BEATS_PER_LIMIT:
                _end(NO_PROGRESS, f"an agent or a view has held up everything for {self._own.end_s:.0f} s")


def _not_ready() -> tuple[str, Work]:
    if app.tables.recovery.in_recovery:
        progress = app.tables.recovery.progress
        token = (app.rebalancing_count, progress.done, progress.total, progress.rebuilding)
        where = f"the recovery of the tables stands at {progress.done} of {progress.total} records"
        return "recovery", Work(token, True, RECOVERY_STALLED, where)
    # Kafka waits for members that were killed until their session has passed, and for those that are slow to rejoin.
    patience_s = settings.session_timeout_s + app.conf.broker_rebalance_timeout
    where = f"no partitions have come from the group {app.tables.group}"
    return "group", Work((app.rebalancing_count, app.consumer_generation_id), True, RECOVERY_STALLED, where, patience_s)


def _what_follows(stuck: Stuck) -> str:
    if stuck.reason in OWN and settings.stuck_exit_s:
        return f": /readyz answers 503, and unless it moves the process ends with {EX_SOFTWARE}"
    return ": /readyz answers 503 until that is over; what is known is still answered"


#: Reason -> the next step, for whoever reads the last line.
_NEXT = {
    KAFKA_AWAY: f"see that Kafka at {settings.kafka} runs and is reached from here",
    SOURCE_SILENT: "see `lately source status` and the log of the source, new orders do not show until it runs",
}


def _end(reason: str, why: str) -> None:
    following = _NEXT.get(reason, "start this worker again, it goes on where its state ends")
    # In a thread of its own: a log that nobody reads may be what holds everything up.
    line = f"lately: stuck, {reason}: {why}: {following}"
    saying = threading.Thread(target=log.critical, args=(line,), name="last line", daemon=True)
    saying.start()
    saying.join(LAST_LINE_S)
    os._exit(EX_SOFTWARE)


watchdog = Watchdog(Limits(settings.stuck_s, settings.stuck_exit_s), Limits(settings.away_s, settings.away_exit_s))
# As app.service would do, but from the start on: those begin after the recovery.
app.add_dependency(watchdog)
