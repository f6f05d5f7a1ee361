"""May a partition be read that this worker does not own (any more), so that nothing is missing in it?

Its owner may have shown something a moment ago that has not arrived here. So the changelog is asked each time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP, AppT

from chunks.client import client_options
from chunks.transactions import is_being_committed

if TYPE_CHECKING:
    from chunks.table import Table

log = logging.getLogger(__name__)

#: How soon to look again at what is about to arrive, in seconds.
POLL_INTERVAL_S = 0.005
REQUEST_TIMEOUT_MS = 2_000


class StandbyCheck:
    """The stores of this worker beside their changelogs."""

    def __init__(self, app: AppT) -> None:
        self._app = app
        self._consumer: AIOKafkaConsumer | None = None
        self._starting = asyncio.Lock()
        #: Changelog partition -> the question that is asked now, and the one that is asked after it.
        self._running_lookups: dict[TP, asyncio.Task] = {}
        self._next_lookups: dict[TP, asyncio.Task] = {}

    async def stop(self) -> None:
        """Ask no more."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.stop()

    async def is_caught_up(self, table: Table, partition: int, within_s: float) -> bool:
        """Whether the partition is open here, with all that anybody may have been shown before this call.

        Waits up to `within_s` seconds for what is missing. Who is told True must read before anything else happens.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while (store := table.stores.get(partition)) is not None and loop.time() < until:
            try:
                end = await asyncio.wait_for(self._read_committed_end(table, partition), until - loop.time())
            except (KafkaError, OSError, asyncio.TimeoutError) as exc:
                log.debug("%s[%s]: how far it is committed is not known: %r", table.changelog, partition, exc)
                return False
            # Beyond the end there may be a part of a transaction: then ask again.
            while table.stores.get(partition) is store and store.offset <= end and loop.time() < until:
                if store.is_complete_at(end, table.source_topic):
                    return True
                await asyncio.sleep(POLL_INTERVAL_S)
        return False

    async def _read_committed_end(self, table: Table, partition: int) -> int:
        """The offset of the changelog below which lies all that was committed before this call. Raises KafkaError."""
        changelog = TP(table.changelog, partition)
        # One question for all who come while another one is on its way: that one may have been asked too early.
        if changelog not in self._next_lookups:
            asking = self._look_up_end(
                changelog, TP(table.source_topic, partition), self._running_lookups.get(changelog)
            )
            self._next_lookups[changelog] = asyncio.create_task(asking)
            self._next_lookups[changelog].add_done_callback(discard_exception)
        return await asyncio.shield(self._next_lookups[changelog])

    async def _look_up_end(self, changelog: TP, source: TP, before: asyncio.Task | None) -> int:
        """Ask Kafka.

        1. Wait for the end of a commit that is under way: its owner may have shown it, and readers do not see it yet.
        2. Where readers may read to now. A transaction that is open then was shown to nobody.
        """
        if before is not None:
            await asyncio.wait([before])
        self._running_lookups[changelog] = self._next_lookups.pop(changelog)
        consumer = await self._started_consumer()
        # 1.
        while await is_being_committed(consumer, self._app.tables.transactional_id(source)):
            await asyncio.sleep(POLL_INTERVAL_S)
        # 2.
        tp = TopicPartition(*changelog)
        return (await consumer.end_offsets([tp]))[tp]

    async def _started_consumer(self) -> AIOKafkaConsumer:
        async with self._starting:
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


def discard_exception(task: asyncio.Task) -> None:
    """Say nothing of how a task failed that nobody may be waiting for any more."""
    if not task.cancelled():
        task.exception()
