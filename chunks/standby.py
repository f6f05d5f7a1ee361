"""Decides whether a partition that another worker owns can be read here completely.

Its owner may have shown a value a moment ago that has not arrived here. So each call asks Kafka for
the changelog's end.
"""

from __future__ import annotations

import asyncio
import logging

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP

from chunks.app import ChunkedApp
from chunks.client import client_options
from chunks.table import Table
from chunks.transactions import is_being_committed

log = logging.getLogger(__name__)

#: Time between two looks at records that are about to arrive, in seconds.
POLL_INTERVAL_S = 0.005
REQUEST_TIMEOUT_MS = 2_000


class StandbyCheck:
    """Compares the stores of this worker with the committed ends of their changelogs."""

    def __init__(self, app: ChunkedApp) -> None:
        self._app = app
        self._consumer: AIOKafkaConsumer | None = None
        self._start_lock = asyncio.Lock()
        #: Changelog partition -> the lookup of its end that runs now, and the one that runs after
        #: it.
        self._running_lookups: dict[TP, asyncio.Task[int]] = {}
        self._next_lookups: dict[TP, asyncio.Task[int]] = {}

    async def stop(self) -> None:
        """Stop the consumer."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.stop()

    async def is_caught_up(self, table: Table, partition: int, within_s: float) -> bool:
        """Return whether the partition is open here with every value shown before this call.

        Waits up to `within_s` seconds for missing records. If the result is True, the caller must
        read the partition before the event loop runs anything else.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while (store := table.stores.get(partition)) is not None and loop.time() < until:
            try:
                end = await asyncio.wait_for(self._read_committed_end(table, partition), until - loop.time())
            except (KafkaError, OSError, asyncio.TimeoutError) as exc:
                log.debug("%s[%s]: its committed end is unknown: %r", table.changelog, partition, exc)
                return False
            # A store past the end may contain a part of a later transaction: then look up the end
            # again.
            while table.stores.get(partition) is store and store.offset <= end and loop.time() < until:
                if store.is_complete_at(end, table.source_topic):
                    return True
                await asyncio.sleep(POLL_INTERVAL_S)
        return False

    async def _read_committed_end(self, table: Table, partition: int) -> int:
        """Return the changelog offset before which all records committed before this call lie.

        Raises KafkaError.
        """
        changelog = TP(table.changelog, partition)
        # All callers that come while a lookup runs share the next one: the running one may have
        # started too early.
        if changelog not in self._next_lookups:
            lookup = self._look_up_end(
                changelog, TP(table.source_topic, partition), self._running_lookups.get(changelog)
            )
            self._next_lookups[changelog] = asyncio.create_task(lookup)
            self._next_lookups[changelog].add_done_callback(discard_exception)
        return await asyncio.shield(self._next_lookups[changelog])

    async def _look_up_end(self, changelog: TP, source: TP, previous: asyncio.Task[int] | None) -> int:
        """Ask Kafka for the committed end of a changelog partition, after the `previous` lookup.

        1. Wait for the end of a commit in progress: its owner may have shown the values that
        readers cannot see yet. 2. Read the offset up to which readers may read. A transaction that
        is open then was shown to nobody.
        """
        if previous is not None:
            await asyncio.wait([previous])
        self._running_lookups[changelog] = self._next_lookups.pop(changelog)
        consumer = await self._get_consumer()
        # 1.
        while await is_being_committed(consumer, self._app.tables.transactional_id(source)):
            await asyncio.sleep(POLL_INTERVAL_S)
        # 2.
        tp = TopicPartition(*changelog)
        return int((await consumer.end_offsets([tp]))[tp])

    async def _get_consumer(self) -> AIOKafkaConsumer:
        async with self._start_lock:
            if self._consumer is None:
                consumer = AIOKafkaConsumer(
                    **client_options(self._app),
                    client_id=f"{self._app.conf.broker_client_id}-copies",
                    enable_auto_commit=False,
                    isolation_level="read_committed",
                    request_timeout_ms=REQUEST_TIMEOUT_MS,
                )
                try:
                    await consumer.start()
                except BaseException:
                    await consumer.stop()
                    raise
                self._consumer = consumer
            return self._consumer


def discard_exception(task: asyncio.Task[object]) -> None:
    """Retrieve the exception of a task that may have no waiter, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
