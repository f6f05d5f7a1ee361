"""The running source: it publishes the shop's changes to `orders`."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from functools import partial

import mysql.connector
from aiokafka.errors import KafkaError
from mode import Service
from mysql.connector import errorcode

from app import metrics as shared_metrics
from app.control import generation, source_state, state_topic
from app.control.source_state import SourceStates, WatermarkState
from app.control.state_topic import SourceStateReader
from app.errors import (
    BadSource,
    DatabaseAway,
    DatabaseRefused,
    RecordTooLarge,
    Refused,
    ServerAway,
    WrongGeneration,
    WrongIdentity,
)
from app.kafka.client import diagnose
from app.kafka.consume import open_consumer, partitions_of
from app.kafka.topic_metadata import read_cluster_id
from app.settings import OUTBOX, Settings
from app.topics import Topics
from source import lock_waits, locks, metrics, outbox_owner, published_versions, server_rules, snapshot_requests
from source.capture_watch import CaptureWatch
from source.guarantee import Guarantee
from source.leadership import CHECK_INTERVAL_S, Capture, Leadership, Progress, assess
from source.locks import HeldLock
from source.mysql import Connection, connect
from source.outbox import Outbox
from source.outbox_table import locate_outbox
from source.publisher import open_publisher
from source.watermark import Watermark

log = logging.getLogger(__name__)

MIN_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
REPORT_INTERVAL_S = 10.0
#: The interval at which a waiting source checks a lock.
LOCK_POLL_S = 0.5
#: Duration of one attempt to become the leader.
LOCK_WAIT_S = 1.0

#: Errors after which publishing is retried.
_TRANSIENT = (mysql.connector.Error, KafkaError, ServerAway, RecordTooLarge, OSError)
#: Errors that a retry cannot solve.
_FATAL = (BadSource, Refused, WrongGeneration, WrongIdentity)


class SourceService(Service):
    """Publishes the shop's changes as long as it runs.

    Of several sources one publishes and the others wait.
    """

    def __init__(self, settings: Settings, topics: Topics) -> None:
        super().__init__()
        self.settings, self.topics = settings, topics
        #: `settings` without the name of an outbox that exists: `setup` may move it.
        self._given_settings = settings
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.progress, self._reported = Progress(), 0
        self._is_leading = self._has_led = False
        #: What is wrong with the shop's table, the triggers and the outbox while this source leads.
        self.watch: CaptureWatch | None = None
        #: The error that ended the source; the command prints it and exits with its code.
        self.fatal_error: BadSource | Refused | WrongGeneration | WrongIdentity | None = None

    def readiness(self) -> dict[str, object]:
        """Return whether this source publishes, and the problems of the capture, for /readyz."""
        watch = self.watch
        problems = [] if watch is None else [problem.message for problem in watch.problems if problem.is_critical]
        status = "failing" if problems else "ok" if self._is_leading else "waiting"
        return {"status": status, "problems": () if watch is None else watch.to_status()}

    @Service.task
    async def _run(self) -> None:
        backoff = MIN_BACKOFF_S
        while not self.should_stop:
            published_before = self.progress.published
            try:
                await self._lead_and_publish()
            except (*_TRANSIENT, *_FATAL) as exc:
                diagnosis = await diagnose(self.settings, exc) if isinstance(exc, KafkaError) else None
                error = diagnosis or await self._explain_lock_wait(exc) or exc
                # What was right at the start may become right again: the server refuses a login that it
                # accepted, or an outbox is dropped.
                may_recover = isinstance(error, DatabaseRefused) or (self._has_led and isinstance(error, BadSource))
                if isinstance(error, _FATAL) and not may_recover:
                    self.fatal_error = error
                    raise error from None
                has_published = self.progress.published > published_before
                backoff = MIN_BACKOFF_S if has_published else min(backoff * 2, MAX_BACKOFF_S)
                metrics.FAILURES.labels(_cause(exc)).inc()
                log.warning("publishing stopped (%s); trying again in %.1f s, nothing is lost", error, backoff)
                await self.sleep(backoff)
            finally:
                self._is_leading = False
                self.watch = None
                shared_metrics.set_problems(())
                metrics.LEADER.set(0)

    async def _explain_lock_wait(self, exc: Exception) -> DatabaseAway | None:
        """Return an error with the cause of a lock wait timeout; None: another error."""
        if not isinstance(exc, mysql.connector.Error) or exc.errno != errorcode.ER_LOCK_WAIT_TIMEOUT:
            return None
        try:
            return DatabaseAway(f"{await asyncio.to_thread(lock_waits.explain, self.settings)}; error {exc.errno}")
        except (*_TRANSIENT, *_FATAL):
            return None

    @Service.task
    async def _fulfil_requests(self) -> None:
        """While this source leads: publish all rows again when a worker requests it."""
        while not self.should_stop:
            try:
                if self._is_leading:
                    await snapshot_requests.fulfil_requests(
                        self.settings, lambda: self._is_leading and not self.should_stop, self._apply_states
                    )
            except (*_TRANSIENT, *_FATAL) as exc:
                log.warning("a worker requested all rows, but they cannot be published now (%s); trying again", exc)
            await self.sleep(CHECK_INTERVAL_S)

    def _apply_states(self, states: SourceStates) -> None:
        if self.watch is not None:
            self.watch.states = states

    @Service.task
    async def _watch_kafka(self) -> None:
        """End the source when Kafka refuses this client: the producer would retry without end."""
        while not self.should_stop:
            await self.sleep(CHECK_INTERVAL_S)
            if self._is_leading and time.monotonic() - self.progress.acknowledged_at > CHECK_INTERVAL_S:
                error = await diagnose(self.settings)
                if isinstance(error, Refused):
                    self.fatal_error = error
                    raise error

    @Service.timer(REPORT_INTERVAL_S)
    async def _report(self) -> None:
        if self.progress.published != self._reported:
            log.info("%d events published since the start", self.progress.published)
            self._reported = self.progress.published

    async def _lead_and_publish(self) -> None:
        """Become the leader and publish until an error, a stop or a handover."""
        lock: HeldLock | None = None
        connection = await asyncio.to_thread(connect, self.settings)
        try:
            self.settings = await asyncio.to_thread(locate_outbox, connection, self._given_settings)
            # Such a server also refuses the statements that take the leader's lock.
            if self.settings.source_mode == OUTBOX:
                await asyncio.to_thread(server_rules.require_row_format, connection)
            async with state_topic.open_reader(self.settings) as reader:
                own = outbox_owner.owner_by_settings(self.settings, await read_cluster_id(reader.consumer))
                await asyncio.to_thread(outbox_owner.require_owner, connection, self.settings, own, reader.states.shop)
                lock = await self._acquire_leadership(connection, reader)
                states = reader.states
            if lock is None:
                return
            shop = await asyncio.to_thread(outbox_owner.claim, connection, self.settings, own, states.shop)
            await state_topic.sign_again(self.settings)
            assessment = await asyncio.to_thread(assess, connection, self.settings)
            watch = CaptureWatch(self.settings, states)
            watch.highest = await published_versions.read_highest(self.settings, self.topics, states)
            capture = await self._create_capture(connection, assessment, lock, states.watermark)
            self._has_led, self.watch = True, watch
            metrics.LEADER.set(1)
            self._is_leading, self.progress.acknowledged_at = True, time.monotonic()
            async with open_publisher(self.settings, self.topics) as publisher:
                if shop != states.shop:
                    await publisher.write_states(shop)
                publisher.offsets = await self._read_end_offsets()
                log.info(
                    "publishing %s.%s to %s (%s, %s)", self.settings.mysql_database, self.settings.source_table,
                    self.topics.orders.name, self.settings.source_mode, assessment.level,
                )  # fmt: skip
                leadership = Leadership(
                    self, self.settings, self.topics, self.name, self.progress,
                    connection, lock, capture, publisher, assessment, watch,
                    partial(outbox_owner.require_owner, connection, self.settings, own, shop),
                )  # fmt: skip
                await leadership.publish()
        finally:
            if lock is not None:
                await asyncio.to_thread(lock.release)
            await asyncio.to_thread(connection.close)

    async def _acquire_leadership(self, connection: Connection, reader: SourceStateReader) -> HeldLock | None:
        """Wait for the leader's lock; None: this service stops.

        Raises WrongGeneration when another generation of the topics has replaced this one.
        """
        logged = ""
        while not self.should_stop:
            requested_by = await asyncio.to_thread(locks.find_holder, connection, self.settings, locks.HANDOVER)
            await reader.catch_up()
            layout = generation.require_not_superseded(self.settings, reader.states)
            is_filling = layout.active_since is None
            if is_filling:
                reason = f"generation {self.settings.generation} is still being filled"
            elif requested_by is not None:
                reason = f"the lock for a handover (`lately rescale`) is held by {requested_by}"
            else:
                lock = await asyncio.to_thread(locks.acquire, connection, self.settings, locks.LEADER, LOCK_WAIT_S)
                if lock is not None:
                    # The process that switches generations holds this lock while it writes the new
                    # layout.
                    try:
                        await reader.catch_up()
                        generation.require_active(self.settings, reader.states)
                    except BaseException:
                        await asyncio.to_thread(lock.release)
                        raise
                    return lock
                holder = await asyncio.to_thread(locks.find_holder, connection, self.settings, locks.LEADER)
                reason = f"another source publishes ({holder})" if holder is not None else logged
            if reason != logged:
                log.info("%s; waiting to take over", reason)
                logged = reason
            if is_filling or requested_by is not None:
                await self.sleep(LOCK_POLL_S)
        return None

    async def _create_capture(
        self, connection: Connection, assessment: Guarantee, lock: HeldLock, state: WatermarkState | None
    ) -> Capture:
        """Create the capture. Raises BadSource for missing objects, unless they were there before."""
        if self.settings.source_mode == OUTBOX:
            outbox = Outbox(connection, self.settings, lock.row_connection_id)
            if not self._has_led:
                await asyncio.to_thread(outbox.require_installed)
            return outbox
        table = self.settings.shop_table
        if state is None or state.table != table:
            raise BadSource(f"there is no watermark of {table} yet: run `lately source setup` first")
        is_proven = assessment.level == source_state.PROVEN
        return await asyncio.to_thread(Watermark, connection, self.settings, state, is_proven)

    async def _read_end_offsets(self) -> dict[int, int]:
        """Return the end offsets of `orders`: the last events of a previous leader are below them.

        The ends include open transactions, because events of the previous leader may follow these.
        """
        partitions = partitions_of(self.topics.orders.name, self.settings.partitions)
        async with open_consumer(self.settings, isolation_level="read_uncommitted") as consumer:
            ends = await consumer.end_offsets(partitions)
        return {tp.partition: end for tp, end in ends.items()}


def _cause(exc: Exception) -> str:
    """Return a short name of an error for a metric; the number of different names is small."""
    errno = getattr(exc, "errno", None)
    if isinstance(exc, mysql.connector.Error) and errno:
        return f"mysql-{errno}"
    return ServerAway.__name__ if isinstance(exc, ServerAway) else type(exc).__name__
