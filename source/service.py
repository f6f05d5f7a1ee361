"""The running event source: the shop's changes -> `orders`."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterator

import mysql.connector
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from mode import Service

from app import metrics as shared
from app import otel
from app.control import generation, source_state
from app.errors import BadSource, Refused, ServerAway, WrongGeneration
from app.kafka.client import client, obstacle
from app.logs import about
from app.settings import OUTBOX, Settings
from app.topics import Topics
from domain import dead_letters
from domain.events import names
from domain.partitioning import partition_of
from source import events, guarantee, locks, metrics, snapshot_requests
from source.guarantee import Guarantee
from source.mysql import Connection, connect, server_name, server_time
from source.outbox import Outbox, Row
from source.publisher import Publisher, publishing
from source.watermark import Watermark

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
REPORT_EVERY_S = 10.0
CHECK_EVERY_S = 5.0
ASSESS_EVERY_S = 60.0
STATUS_EVERY_S = 1.0
#: A look for changes and a batch cost database, Kafka and workers nearly the same with one row as with so many: after
#: fewer than these there is a pause.
FEW_ROWS = 100
#: The pause after a change; each further one without a change is twice as long, up to LATELY_SOURCE_POLL_MS.
SHORTEST_PAUSE_S = 0.01
SLOW_POLL_S = 0.5

_PASSING = (mysql.connector.Error, KafkaError, ServerAway, OSError)
#: Of these waiting does not help.
_LASTING = (BadSource, Refused, WrongGeneration)


class Source(Service):
    """Publishes the shop's changes for as long as it runs; of several, one publishes and the others wait."""

    def __init__(self, settings: Settings, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.topics = Topics(settings)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.published = self.reported = 0
        self._leads = False
        #: When Kafka took something from us last, in seconds of the monotonic clock.
        self._taken = 0.0
        #: Why the source gave up; whoever runs it shows it and ends with its exit code.
        self.given_up: BadSource | Refused | WrongGeneration | None = None

    @Service.task
    async def _run(self) -> None:
        backoff = FIRST_BACKOFF_S
        while not self.should_stop:
            before = self.published
            try:
                await self._session()
            except (*_PASSING, *_LASTING) as exc:
                why = (isinstance(exc, KafkaError) and await obstacle(self.settings, exc)) or exc
                if isinstance(why, _LASTING):
                    self.given_up = why
                    raise why from None
                backoff = FIRST_BACKOFF_S if self.published > before else min(backoff * 2, LONGEST_BACKOFF_S)
                metrics.FAILURES.labels(_cause(exc)).inc()
                log.warning("publishing stopped (%s); trying again in %.1f s, nothing is lost", why, backoff)
                await self.sleep(backoff)
            finally:
                self._leads = False
                metrics.LEADER.set(0)

    @Service.task
    async def _grant_wishes(self) -> None:
        """While this source leads: all rows are published again whenever a worker has lost what only MySQL has."""
        while not self.should_stop:
            try:
                if self._leads:
                    await snapshot_requests.grant(self.settings, lambda: self._leads and not self.should_stop)
            except (*_PASSING, *_LASTING) as exc:
                log.warning("a worker wants all rows, but they cannot be published now (%s); trying again", exc)
            await self.sleep(CHECK_EVERY_S)

    @Service.task
    async def _watch(self) -> None:
        """While Kafka takes nothing: give up where it lets us in no more, as the producer would try for ever."""
        while not self.should_stop:
            await self.sleep(CHECK_EVERY_S)
            if self._leads and time.monotonic() - self._taken > CHECK_EVERY_S:
                why = await obstacle(self.settings)
                if isinstance(why, Refused):
                    self.given_up = why
                    raise why

    @Service.timer(REPORT_EVERY_S)
    async def _report(self) -> None:
        if self.published != self.reported:
            log.info("%d events published since the start", self.published)
            self.reported = self.published

    async def _session(self) -> None:
        """Publish until something breaks, the service stops or makes way: one connection, producer, leader's lock."""
        connection = await asyncio.to_thread(connect, self.settings)
        try:
            async with source_state.following(self.settings) as told:
                await self._lead(connection, told)
            if self.should_stop:
                return
            promised = await asyncio.to_thread(self._assess, connection)
            capture = await self._capture(connection, promised)
            await asyncio.to_thread(capture.check)
            metrics.LEADER.set(1)
            self._leads, self._taken = True, time.monotonic()
            async with publishing(self.settings) as publisher:
                publisher.offsets = await _ends(self.settings)
                log.info(
                    "publishing %s.%s to %s (%s, %s)", self.settings.mysql_database, self.settings.source_table,
                    self.topics.orders.name, self.settings.source_mode, promised.level,
                )  # fmt: skip
                await self._publish(connection, capture, publisher, promised)
        finally:
            await asyncio.to_thread(connection.close)

    async def _lead(self, connection: Connection, told: source_state.Told) -> None:
        """Wait for the lock that only one source holds; the server frees it when this connection ends.

        Raises WrongGeneration where another generation of the topics has taken over.
        """
        handover, leaders, before = locks.of_handover(self.settings), locks.of_leader(self.settings), ""
        while not self.should_stop:
            wanted = await asyncio.to_thread(locks.taken, connection, handover)
            await told.catch_up()
            filling = generation.refuse_former(self.settings, told.known).since is None
            if not (filling or wanted) and await asyncio.to_thread(locks.take, connection, leaders, 1):
                # A switch to another generation is written down by whoever holds the lock.
                await told.catch_up()
                generation.refuse_other(self.settings, told.known)
                return
            why = "another source publishes"
            if filling:
                why = f"generation {self.settings.generation} is still being filled"
            elif wanted:
                why = "`lately rescale` has asked to make way"
            if why != before:
                log.info("%s; waiting to take over", why)
                before = why
            if filling or wanted:
                await self.sleep(SLOW_POLL_S)

    async def _capture(self, connection: Connection, promised: Guarantee) -> Outbox | Watermark:
        if self.settings.source_mode == OUTBOX:
            return Outbox(connection, self.settings)
        at = (await source_state.read(self.settings)).get(source_state.WATERMARK)
        table = f"{self.settings.mysql_database}.{self.settings.source_table}"
        if at is None or at.table != table:
            raise BadSource(f"there is no watermark of {table} yet: run `lately source setup` first")
        return await asyncio.to_thread(Watermark, connection, self.settings, at, promised.level == source_state.PROVEN)

    async def _publish(
        self, connection: Connection, capture: Outbox | Watermark, publisher: Publisher, promised: Guarantee
    ) -> None:
        name = f"/mysql/{server_name(connection)}/{self.settings.mysql_database}/{self.settings.source_table}"
        longest, pause = self.settings.source_poll_ms / 1000, SHORTEST_PAUSE_S
        checked = assessed = time.monotonic()
        told = 0.0
        while not self.should_stop:
            now = time.monotonic()
            if now - checked > CHECK_EVERY_S:
                await asyncio.to_thread(capture.check)
                checked = now
            if now - assessed > ASSESS_EVERY_S:
                promised = await asyncio.to_thread(self._assess, connection)
                assessed = now
                if isinstance(capture, Watermark):
                    capture.proven = promised.level == source_state.PROVEN
            published = await self._publish_batch(capture, publisher, name)
            if published:
                pause = min(SHORTEST_PAUSE_S, longest)
            if published < min(FEW_ROWS, self.settings.source_batch_rows):
                await self.sleep(pause)
            if not published:
                pause = min(pause * 2, longest)
            if now - told > STATUS_EVERY_S:
                if await asyncio.to_thread(locks.taken, connection, locks.of_handover(self.settings)):
                    return
                await self._tell(connection, capture, publisher, promised)
                told, self._taken = now, time.monotonic()

    async def _publish_batch(self, capture: Outbox | Watermark, publisher: Publisher, name: str) -> int:
        """Publish the next changes and return their number. The order of the steps makes it safe:

        1. read them, 2. send them in their order and wait for Kafka's acknowledgement of every one, 3. say that they
        are done. A crash in between publishes them again, and repeats change nothing downstream.
        """
        # 1.
        begun = time.monotonic()
        rows = await asyncio.to_thread(capture.read)
        metrics.POLL.set(time.monotonic() - begun)
        if time.monotonic() - begun > SLOW_POLL_S:
            log.warning("a look for changes took %.1f s: is a transaction open for long?", time.monotonic() - begun)
        # 2.
        if rows:
            records = [self._record(row, name) for row in rows]
            with otel.publishing(self.topics.orders.name, self._traced(rows, records)):
                await publisher.publish(records)
        # 3.
        await asyncio.to_thread(capture.done, rows)
        self.published += len(rows)
        return len(rows)

    def _traced(self, rows: list[Row], records: list[events.Record]) -> Iterator[tuple[str | None, str, int]]:
        """What a span tells of each row that becomes an event."""
        for row, record in zip(rows, records, strict=True):
            if record.topic == self.topics.orders.name:
                yield row.traceparent, row.event_id, partition_of(record.key, self.settings.partitions)

    def _record(self, row: Row, name: str) -> events.Record:
        record = events.record(row, name, self.topics, self.settings)
        if record.topic == self.topics.orders_dead.name:
            headers = dict(record.headers)
            shared.DEAD.labels(headers[f"{dead_letters.PREFIX}exception"].decode()).inc()
            reason = headers[f"{dead_letters.PREFIX}message"].decode()
            order_id, _ = names(record.value)
            extra = about(order_id, row.traceparent, topic=record.topic)
            log.warning("row %d goes to %s: %s", row.id, record.topic, reason, extra=extra)
        metrics.PUBLISHED.labels(row.type.rpartition(".")[2]).inc()
        return record

    async def _tell(
        self, connection: Connection, capture: Outbox | Watermark, publisher: Publisher, promised: Guarantee
    ) -> None:
        """Write down how the source stands, for its successor and for the workers."""
        now = await asyncio.to_thread(server_time, connection)
        oldest = 0.0 if capture.oldest is None else max(0.0, (now - capture.oldest) / 1e6)
        shared.OLDEST.set(oldest)
        position = capture.position()
        if position is not None:
            metrics.WATERMARK_AGE.set(capture.age_s)
            await publisher.remember(position)
        level = promised.level
        if isinstance(capture, Watermark) and level == source_state.PROVEN and not capture.proven:
            level = source_state.TIMED
        await publisher.remember(
            source_state.Status(
                mode=self.settings.source_mode, guarantee=level, reasons=promised.reasons, unseen=capture.unseen,
                as_of=capture.as_of, offsets=publisher.offsets, oldest_pending_s=oldest, at=now, leader=self.name,
            )
        )  # fmt: skip

    def _assess(self, connection: Connection) -> Guarantee:
        promised = guarantee.assess(connection, self.settings)
        for level in source_state.LEVELS:
            shared.GUARANTEE.labels(level).set(level == promised.level)
        for reason in promised.reasons:
            log.warning("guarantee %s: %s", promised.level, reason)
        return promised


def _cause(exc: Exception) -> str:
    """A short name of what went wrong, of which there are few."""
    errno = getattr(exc, "errno", None)
    return f"mysql-{errno}" if isinstance(exc, mysql.connector.Error) and errno else type(exc).__name__


async def _ends(settings: Settings) -> dict[int, int]:
    """Where `orders` ends: a former leader's last events are below, which it may not have told any more."""
    topic = Topics(settings).orders.name
    consumer = AIOKafkaConsumer(**client(settings), enable_auto_commit=False)
    try:
        await consumer.start()
        ends = await consumer.end_offsets([TopicPartition(topic, number) for number in range(settings.partitions)])
    finally:
        await consumer.stop()
    return {tp.partition: end for tp, end in ends.items()}
