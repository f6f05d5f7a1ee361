"""Report a stalled worker, and end it with exit code 70 so that its supervisor starts it again.

A worker is stalled when it has work and makes no progress although Kafka answers: a partition, or
the recovery. Kafka itself is asked for pending work, because a consumer that has stopped fetching
does not see it. Kafka without an answer and a silent source have limits of their own. By default
these end no worker: its tables are correct, only old, and all workers would exit at once although a
restart repairs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP
from mode import Service

from app import metrics
from app.freeze_guard import EX_SOFTWARE
from app.kafka.client import client_options
from app.services.source_status import SourceStatus
from app.services.stall_detector import (
    KAFKA_AWAY,
    NO_PROGRESS,
    REASONS,
    RECOVERY_STALLED,
    SOURCE_SILENT,
    WORKER_REASONS,
    Stall,
    StallDetector,
    StallLimits,
    WorkState,
)
from app.services.throttle import Throttle
from app.settings import Settings
from app.topics import Topics
from chunks import ChunkedApp

#: Observations within the shortest limit, and the longest pause between two of them (s).
OBSERVATIONS_PER_LIMIT, MAX_PAUSE_S = 12, 5.0
#: Timeout for the end offsets of topics.
KAFKA_TIMEOUT_S = 5.0
BEATS_PER_LIMIT = 20
#: Timeout for the last line of the log.
LAST_LINE_TIMEOUT_S = 1.0

log = logging.getLogger(__name__)


class Watchdog(Service):
    """Observes the work of the app every few seconds; `stalls` is the last result."""

    def __init__(
        self, app: ChunkedApp, settings: Settings, topics: Topics, source_status: SourceStatus, throttle: Throttle,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.stalls: list[Stall] = []
        self._app, self._settings = app, settings
        self._source_status, self._throttle = source_status, throttle
        self._limits = StallLimits(settings.stuck_s, settings.stuck_exit_s)
        other_limits = StallLimits(settings.away_s, settings.away_exit_s)
        self._shortest_limit_s = min(filter(None, (self._limits.first_s, other_limits.first_s)), default=0.0)
        self._detector = StallDetector(self._limits, other_limits)
        self._consumer: AIOKafkaConsumer | None = None
        self._source_state = TP(topics.source_state.name, 0)
        self._loop_turns = 0

    @Service.task
    async def _watch(self) -> None:
        if self._limits.exit_s:
            threading.Thread(target=self._guard_loop, name="watchdog", daemon=True).start()
        while self._shortest_limit_s and not self._app.should_stop:
            await self._observe()
            await self.sleep(min(MAX_PAUSE_S, self._shortest_limit_s / OBSERVATIONS_PER_LIMIT))

    async def on_stop(self) -> None:
        """Stop the consumer."""
        await self._stop_consumer()

    async def _observe(self) -> None:
        """Find stalls, report new ones, and end the process when one is overdue."""
        ends = await self._end_offsets({self._source_state, *self._source_partitions()})
        names_before = {stall.name for stall in self.stalls}
        self.stalls = self._detector.observe(time.monotonic(), dict(self._works(ends)))
        for reason in REASONS:
            metrics.STUCK.labels(reason).set(any(stall.reason == reason for stall in self.stalls))
        for stall in self.stalls:
            if stall.is_overdue and not self._app.should_stop:
                self._exit(stall.reason, str(stall))
            if stall.name not in names_before:
                self.log.error("stuck, %s: %s%s", stall.reason, stall, self._consequence(stall))
        for name in sorted(names_before - {stall.name for stall in self.stalls}):
            self.log.warning("not stuck any more: %s", name)

    def _source_partitions(self) -> Iterable[TP]:
        return self._app.tables.partition_tasks or self._app.assignor.assigned_actives()

    def _works(self, ends: dict[TP, int]) -> Iterable[tuple[str, WorkState]]:
        """Yield the name and state of each work for which the end offsets are available."""
        is_reached = bool(ends)
        yield "kafka", WorkState(None, not is_reached, KAFKA_AWAY, f"no answer from {self._settings.kafka}")
        if not is_reached:
            return
        newest = self._source_status.newest
        if newest is not None and self._source_status.is_complete:
            yield "source", WorkState(newest.written_at, True, SOURCE_SILENT, "no status from any `lately source`")
        if self._app.rebalancing or not self._app.tables.actives_ready:
            if self._app.assignor.assigned_actives() <= set(ends):
                yield self._startup_work()
            return
        tasks = self._app.tables.partition_tasks
        for name, tps in self._partitions_by_work().items():
            positions = {tp: tasks[tp].durable for tp in tps if tp in tasks and tp in ends}
            pending = sum(max(0, ends[tp] - position) for tp, position in positions.items())
            offsets = ", ".join(map(str, positions.values()))
            description = f"{name} has made no progress at offset {offsets} ({pending} records pending)"
            token = (*positions.items(), self._throttle.records[name])
            yield name, WorkState(token, pending > 0, NO_PROGRESS, description)

    def _partitions_by_work(self) -> dict[str, list[TP]]:
        """Group the partitions by work.

        The partitions of a background topic are one work: progress in one of them is enough.
        """
        grouped: dict[str, list[TP]] = {}
        for tp in sorted(self._app.tables.partition_tasks):
            is_background = tp.topic in self._app.tables.background_topics
            grouped.setdefault(tp.topic if is_background else f"{tp.topic}[{tp.partition}]", []).append(tp)
        return grouped

    def _startup_work(self) -> tuple[str, WorkState]:
        """Return the work before the tables are ready: the recovery, or the join of the group."""
        app = self._app
        if app.tables.recovery.in_recovery:
            progress = app.tables.recovery.progress
            token = (app.rebalancing_count, progress.done, progress.total, progress.rebuilding)
            description = (
                f"the recovery of the tables has made no progress at {progress.done} of {progress.total} records"
            )
            return "recovery", WorkState(token, True, RECOVERY_STALLED, description)
        # Kafka waits for killed members until their session has ended, and for members that rejoin
        # slowly.
        grace_s = self._settings.session_timeout_s + app.conf.broker_rebalance_timeout
        description = f"the group {app.tables.group_id} has assigned no partitions"
        group_token = (app.rebalancing_count, app.consumer_generation_id)
        return "group", WorkState(group_token, True, RECOVERY_STALLED, description, grace_s)

    async def _end_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Return the committed end offsets of the partitions for which Kafka answers."""
        requests: list[tuple[TP, asyncio.Task[int | None]]] = []
        try:
            if self._consumer is None:
                self._consumer = AIOKafkaConsumer(
                    **client_options(self._settings), request_timeout_ms=int(KAFKA_TIMEOUT_S * 1000),
                    enable_auto_commit=False, isolation_level="read_committed",
                )  # fmt: skip
                await asyncio.wait_for(self._consumer.start(), KAFKA_TIMEOUT_S)
            requests = [(tp, asyncio.create_task(self._end_offset(tp))) for tp in tps]
            await asyncio.wait([request for _, request in requests], timeout=KAFKA_TIMEOUT_S)
        except (KafkaError, OSError, asyncio.TimeoutError):
            requests = []
        responses = {tp: request.result() for tp, request in requests if request.done()}
        for _, request in requests:
            request.cancel()
        ends = {tp: end for tp, end in responses.items() if end is not None}
        if not ends:
            await self._stop_consumer()
        return ends

    async def _end_offset(self, tp: TP) -> int | None:
        consumer = self._consumer
        if consumer is None:
            return None
        try:
            ends: dict[TopicPartition, int] = await consumer.end_offsets([TopicPartition(*tp)])
        except (KafkaError, OSError):
            return None
        return ends.popitem()[1]

    async def _stop_consumer(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    @Service.task
    async def _count_loop_turns(self) -> None:
        while self._limits.exit_s and not self._app.should_stop:
            self._loop_turns += 1
            await self.sleep(self._limits.exit_s / BEATS_PER_LIMIT)

    def _guard_loop(self) -> None:
        """End the process when the event loop is blocked.

        Beats are counted, not seconds: the time in which a machine is suspended is not counted.
        """
        turns, beats = self._loop_turns, 0
        while not self._app.should_stop:
            time.sleep(self._limits.exit_s / BEATS_PER_LIMIT)
            turns, beats = (self._loop_turns, 0) if self._loop_turns != turns else (turns, beats + 1)
            if beats >= BEATS_PER_LIMIT:
                self._exit(
                    NO_PROGRESS, f"an agent or a view has blocked the event loop for {self._limits.exit_s:.0f} s"
                )

    def _consequence(self, stall: Stall) -> str:
        if stall.reason in WORKER_REASONS and self._limits.exit_s:
            return f": /readyz answers 503, and without progress the process exits with {EX_SOFTWARE}"
        return ": /readyz answers 503 until that ends; requests are still answered from the tables"

    def _exit(self, reason: str, cause: str) -> None:
        next_steps = {
            KAFKA_AWAY: f"check that Kafka at {self._settings.kafka} runs and can be reached from here",
            SOURCE_SILENT: "check `lately source status` and the log of the source, new orders are not shown until it "
            "runs",
        }
        next_step = next_steps.get(reason, "start this worker again, it continues at its last commit")
        # In its own thread: a log whose reader is stuck may be the cause of the stall.
        line = f"lately: stuck, {reason}: {cause}: {next_step}"
        logging_thread = threading.Thread(target=log.critical, args=(line,), name="last line", daemon=True)
        logging_thread.start()
        logging_thread.join(LAST_LINE_TIMEOUT_S)
        os._exit(EX_SOFTWARE)
