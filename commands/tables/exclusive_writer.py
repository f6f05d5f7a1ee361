"""Takes over all partitions without a worker: the owner of their transactional ids is the only writer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced
from faust.types import TP

from app.errors import StillRunning
from app.kafka import groups
from app.kafka.admin import admin_client
from app.kafka.client import client_options
from app.settings import Settings
from app.topics import Topics
from chunks import BATCH_BYTES, MAX_REQUEST_BYTES, TRANSACTION_TIMEOUT_MS, transactional_id

#: Topic partition, key, value and headers.
TopicMessage = tuple[TP, bytes | None, bytes | None, list[tuple[str, bytes]]]
#: Writes messages in one transaction of the producer of a source partition.
WriteTransaction = Callable[[TP, list[TopicMessage]], Awaitable[None]]


async def require_no_worker(settings: Settings) -> None:
    """Raise StillRunning if a group of this app has members. Raises ServerAway."""
    async with admin_client(settings) as admin:
        by_group = await groups.workers_by_group(admin, settings)
    workers = sorted(worker for members in by_group.values() for worker in members)
    if workers:
        raise StillRunning(
            f"{len(workers)} workers of {settings.group} are running: {', '.join(workers)}; stop them, and wait "
            f"LATELY_SESSION_TIMEOUT_S ({settings.session_timeout_s} s) for killed ones"
        )


@asynccontextmanager
async def open_exclusive_writer(settings: Settings, dry_run: bool) -> AsyncIterator[WriteTransaction]:
    """Take over all partitions and yield a function that writes; with `dry_run` neither happens.

    Raises StillRunning if another process takes the partitions back.
    """
    producers: dict[TP, AIOKafkaProducer] = {}

    async def write(source: TP, messages: list[TopicMessage]) -> None:
        if dry_run or not messages:
            return
        producer = producers[source]
        async with producer.transaction():
            sent = [
                await producer.send(tp.topic, value, key, tp.partition, headers=headers)
                for tp, key, value, headers in messages
            ]
            await asyncio.gather(*sent)

    try:
        for topic in dict.fromkeys(Topics(settings).source_topics.values() if not dry_run else ()):
            for partition in range(settings.partitions):
                source = TP(topic, partition)
                producers[source] = AIOKafkaProducer(
                    **client_options(settings),
                    transactional_id=transactional_id(settings.group, source),
                    transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
                    max_batch_size=BATCH_BYTES,
                    max_request_size=MAX_REQUEST_BYTES,
                )
        await asyncio.gather(*(producer.start() for producer in producers.values()))
        yield write
    except (ProducerFenced, InvalidProducerEpoch):
        raise StillRunning(
            "a worker or another restore has started and ended this one: stop it, and repeat the restore"
        ) from None
    finally:
        await asyncio.gather(*(producer.stop() for producer in producers.values()))
