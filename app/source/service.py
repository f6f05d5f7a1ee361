"""The running event source: outbox -> `orders`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import mysql.connector
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from mode import Service

from app import dead_letters
from app.config import Settings
from app.errors import ServerAway
from app.source import events, outbox, triggers
from app.source.mysql import Connection, connect, server_name
from app.topics import MAX_REQUEST_BYTES, Topics

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
REPORT_EVERY_S = 10.0
CHECK_EVERY_S = 5.0

_PASSING = (mysql.connector.Error, KafkaError, ServerAway, OSError)


class Source(Service):
    """Publishes the outbox for as long as it runs; of several, one publishes and the others wait."""

    def __init__(self, settings: Settings, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.topics = Topics(settings)
        self.published = self.reported = 0

    @Service.task
    async def _run(self) -> None:
        backoff = FIRST_BACKOFF_S
        while not self.should_stop:
            before = self.published
            try:
                await self._session()
            except _PASSING as exc:
                backoff = FIRST_BACKOFF_S if self.published > before else min(backoff * 2, LONGEST_BACKOFF_S)
                log.warning("publishing stopped (%s); trying again in %.1f s, nothing is lost", exc, backoff)
                await self.sleep(backoff)

    @Service.timer(REPORT_EVERY_S)
    async def _report(self) -> None:
        if self.published != self.reported:
            log.info("%d events published since the start", self.published)
            self.reported = self.published

    async def _session(self) -> None:
        """Publish until something breaks or the service stops: one connection, one producer, one leader's lock."""
        connection = await asyncio.to_thread(connect, self.settings)
        try:
            await asyncio.to_thread(triggers.require, connection, self.settings)
            await self._lead(connection)
            name = f"/mysql/{server_name(connection)}/{self.settings.mysql_database}/{self.settings.source_table}"
            async with _producer(self.settings) as producer:
                log.info("publishing %s to %s", self.settings.source_outbox, self.topics.orders.name)
                checked = time.monotonic()
                while not self.should_stop:
                    if time.monotonic() - checked > CHECK_EVERY_S:
                        await asyncio.to_thread(triggers.require, connection, self.settings)
                        checked = time.monotonic()
                    if not await self._publish_batch(connection, producer, name):
                        await self.sleep(self.settings.source_poll_ms / 1000)
        finally:
            await asyncio.to_thread(connection.close)

    async def _lead(self, connection: Connection) -> None:
        """Wait for the lock that only one source holds; the server frees it when this connection ends."""
        lock = f"lately:{self.settings.mysql_database}.{self.settings.source_outbox}"[-64:]
        waiting = False
        while not self.should_stop:
            if await asyncio.to_thread(_get_lock, connection, lock):
                return
            if not waiting:
                log.info("another source publishes; waiting to take over")
                waiting = True

    async def _publish_batch(self, connection: Connection, producer: AIOKafkaProducer, name: str) -> int:
        """Publish the oldest rows of the outbox and return their number. The order of the steps makes it safe:

        1. read the rows, 2. send them in the order of their ids, 3. wait for Kafka's acknowledgement of every one,
        4. delete them. A crash in between publishes them again, and repeats change nothing downstream.
        """
        # 1.
        rows = await asyncio.to_thread(outbox.read, connection, self.settings)
        # 2.
        sent = []
        for row in rows:
            record = events.record(row, name, self.topics, self.settings)
            if record.topic == self.topics.orders_dead.name:
                reasons = dict(record.headers)
                log.warning(
                    "outbox row %d goes to %s: %s", row.id, record.topic,
                    reasons[f"{dead_letters.PREFIX}message"].decode(),
                )  # fmt: skip
            sent.append(await producer.send(record.topic, record.value, record.key, headers=record.headers))
        # 3.
        await asyncio.gather(*sent)
        # 4.
        await asyncio.to_thread(outbox.delete, connection, self.settings, rows)
        self.published += len(rows)
        return len(rows)


def _get_lock(connection: Connection, lock: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(%s, 1)", (lock,))
        return cursor.fetchone()[0] == 1


@asynccontextmanager
async def _producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_servers,
        client_id=f"{settings.id}-source",
        acks="all",
        enable_idempotence=True,
        request_timeout_ms=30_000,
        max_request_size=MAX_REQUEST_BYTES,
    )
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()
