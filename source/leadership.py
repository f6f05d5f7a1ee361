"""One leadership of a source: from the leader's lock until an error, a stop or a handover."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mysql.connector
from mode import Service
from mysql.connector import errorcode

from app import metrics as shared_metrics
from app import otel
from app.control import source_state
from app.control.source_state import LeaderStatus
from app.logs import event_fields
from app.settings import Settings
from app.topics import Topics
from domain import dead_letters
from domain.events import TYPES, read_references
from domain.partitioning import partition_of
from source import guarantee, locks, metrics
from source.capture_watch import CaptureWatch
from source.events import OutgoingRecord, build_records, event_source
from source.guarantee import Guarantee
from source.locks import HeldLock
from source.mysql import Connection, read_server_name, read_server_time
from source.outbox import Outbox
from source.outbox_row import OutboxRow
from source.publisher import Publisher
from source.watermark import Watermark

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 5.0
ASSESSMENT_INTERVAL_S = 60.0
STATUS_INTERVAL_S = 1.0
#: A batch of this many rows costs the database, Kafka and the workers about as much as a batch of
#: one row. After a smaller batch the source pauses.
SMALL_BATCH_ROWS = 100
#: The pause after a change. Each further pause without a change is twice as long, up to
#: LATELY_SOURCE_POLL_MS.
MIN_PAUSE_S = 0.01
#: A read that takes longer is logged.
SLOW_READ_S = 0.5

#: Errors of a table or a column that does not exist.
_MISSING = (errorcode.ER_NO_SUCH_TABLE, errorcode.ER_BAD_FIELD_ERROR, errorcode.ER_BAD_DB_ERROR)

Capture = Outbox | Watermark


@dataclass
class Progress:
    """Number of published rows of a source, over all its leaderships."""

    published: int = 0
    #: Time of the monotonic clock at which Kafka acknowledged a record for the last time.
    acknowledged_at: float = 0.0


@dataclass
class Leadership:
    """Publishes changes while this process holds the leader's lock.

    It uses one connection to MySQL, the connection of the lock, and one producer. `service` is the
    service that is told to stop; `name` identifies this process in the status.
    """

    service: Service
    settings: Settings
    topics: Topics
    name: str
    progress: Progress
    connection: Connection
    lock: HeldLock
    capture: Capture
    publisher: Publisher
    assessment: Guarantee
    watch: CaptureWatch
    #: Raises WrongIdentity when the outbox was given to other topics.
    require_owner: Callable[[], object]

    def __post_init__(self) -> None:
        self._event_source = event_source(read_server_name(self.connection), self.settings)

    async def publish(self) -> None:
        """Publish until a stop or a handover. Raises the errors of MySQL and Kafka."""
        max_pause, pause = self.settings.source_poll_ms / 1000, MIN_PAUSE_S
        await self.watch.observe(self.connection, self.publisher)
        await self._follow_restored_table()
        checked_at = assessed_at = time.monotonic()
        status_at = 0.0
        while not self.service.should_stop:
            now = time.monotonic()
            if now - checked_at > CHECK_INTERVAL_S:
                await asyncio.to_thread(self.require_owner)
                was_blocked = self.watch.is_blocked
                await self.watch.observe(self.connection, self.publisher)
                await self._follow_restored_table()
                checked_at = now
                if was_blocked and not self.watch.is_blocked and isinstance(self.capture, Watermark):
                    return  # the columns may have other names or types: begin anew
            if now - assessed_at > ASSESSMENT_INTERVAL_S:
                self.assessment = await asyncio.to_thread(assess, self.connection, self.settings)
                assessed_at = now
                if isinstance(self.capture, Watermark):
                    self.capture.proven = self.assessment.level == source_state.PROVEN
            published = 0
            if not self.watch.is_blocked:
                try:
                    published = await self._publish_batch()
                except mysql.connector.Error as exc:
                    if exc.errno not in _MISSING:
                        raise
                    await self.watch.observe(self.connection, self.publisher)
                    if not self.watch.is_blocked:
                        raise
            if published:
                pause = min(MIN_PAUSE_S, max_pause)
            if published < min(SMALL_BATCH_ROWS, self.settings.source_batch_rows):
                await self.service.sleep(pause)
            if not published:
                pause = min(pause * 2, max_pause)
            if now - status_at > STATUS_INTERVAL_S:
                await asyncio.to_thread(self.lock.require)
                if await asyncio.to_thread(locks.find_holder, self.connection, self.settings, locks.HANDOVER):
                    return
                await self._write_status()
                status_at, self.progress.acknowledged_at = now, time.monotonic()

    async def _follow_restored_table(self) -> None:
        """In watermark mode: read the ids that a restored table assigns again."""
        if isinstance(self.capture, Watermark) and not self.watch.is_blocked:
            if await asyncio.to_thread(self.capture.begin_anew_if_restored):
                await self.watch.note_restored(self.connection, self.publisher, self.capture)

    async def _publish_batch(self) -> int:
        """Publish the next changes and return their number. The order of the steps makes it safe:

        1. Read them.
        2. Send them in their order and wait until Kafka has acknowledged all.
        3. Mark them as published.

        After a crash between the steps they are published again; repeats change nothing downstream.
        """
        # 1.
        began = time.monotonic()
        rows = await asyncio.to_thread(self.capture.read_rows)
        duration = time.monotonic() - began
        metrics.POLL.set(duration)
        if duration > SLOW_READ_S:
            log.warning("a read of changes took %.1f s: is a transaction open for a long time?", duration)
        if isinstance(self.capture, Outbox) and await asyncio.to_thread(
            self.capture.has_reused_ids, self.watch.highest, self.watch.assigned_before
        ):
            # The versions of these rows are below published ones; `observe` gives them new ones.
            await self.watch.observe(self.connection, self.publisher, has_reused_ids=True)
            return 0
        # 2.
        if rows:
            records = [(row, record) for row in rows for record in self._build_records(row)]
            with otel.publishing(self.topics.orders.name, self._traced_events(records)):
                await self.publisher.publish(record for _, record in records)
            self.watch.note_published(rows)
        # 3.
        await asyncio.to_thread(self.capture.mark_published, rows)
        self.progress.published += len(rows)
        return len(rows)

    def _traced_events(self, records: list[tuple[OutboxRow, OutgoingRecord]]) -> Iterator[tuple[str | None, str, int]]:
        """Yield (traceparent, event id, partition) of each event."""
        for row, record in records:
            if record.event_id is not None:
                yield row.traceparent, record.event_id, partition_of(record.key or b"", self.settings.partitions)

    def _build_records(self, row: OutboxRow) -> list[OutgoingRecord]:
        records = build_records(row, self._event_source, self.topics, self.settings)
        letter = records[0]
        if letter.topic == self.topics.orders_dead.name:
            headers = dict(letter.headers)
            shared_metrics.DEAD_LETTERS.labels(headers[f"{dead_letters.HEADER_PREFIX}exception"].decode()).inc()
            reason = headers[f"{dead_letters.HEADER_PREFIX}message"].decode()
            order_id, _ = read_references(letter.value)
            extra = event_fields(order_id, row.traceparent, topic=letter.topic)
            effect = "; its purchase is taken back" if len(records) > 1 else ""
            log.warning("row %d goes to %s: %s%s", row.id, letter.topic, reason, effect, extra=extra)
        # Only known types, because a row that no trigger wrote can have any.
        metrics.PUBLISHED.labels(row.type.rpartition(".")[2] if row.type in TYPES else "unknown").inc()
        return records

    async def _write_status(self) -> None:
        """Write the status of this source to Kafka, for the next leader and for the workers."""
        now = await asyncio.to_thread(read_server_time, self.connection)
        self.watch.note_time(now)
        oldest_s = 0.0 if self.capture.oldest is None else max(0.0, (now - self.capture.oldest) / 1e6)
        shared_metrics.OLDEST_PENDING_CHANGE.set(oldest_s)
        assessment = guarantee.with_problems(self.assessment, self.watch.messages)
        level = assessment.level
        if isinstance(self.capture, Watermark):
            metrics.WATERMARK_AGE.set(self.capture.age_s)
            await self.publisher.write_states(self.capture.resume_state())
            if level == source_state.PROVEN and not self.capture.proven:
                level = source_state.TIMED
        for name in source_state.GUARANTEE_LEVELS:
            shared_metrics.GUARANTEE.labels(name).set(name == level)
        await self.publisher.write_states(
            LeaderStatus(
                mode=self.settings.source_mode, guarantee=level, reasons=assessment.reasons,
                unseen_changes=(*self.capture.unseen, *assessment.unseen), as_of=self.capture.as_of,
                offsets=self.publisher.offsets, oldest_pending_s=oldest_s, written_at=now, leader=self.name,
                problems=self.watch.to_status(), highest_version=self.watch.highest,
            )
        )  # fmt: skip


def assess(connection: Connection, settings: Settings) -> Guarantee:
    """Assess the guarantee, and log the reasons why it is not higher.

    Raises mysql.connector.Error, DatabaseAway.
    """
    assessment = guarantee.assess(connection, settings)
    for reason in assessment.reasons:
        log.warning("guarantee %s: %s", assessment.level, reason)
    return assessment
