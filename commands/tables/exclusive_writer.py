"""Taking the partitions of an app without a worker: who has their transactional ids is the only one who can write."""

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

#: Where to, key, value and headers.
Message = tuple[TP, bytes | None, bytes | None, list[tuple[str, bytes]]]
#: Writes messages in one transaction of the producer that a source partition's owner has.
Write = Callable[[TP, list[Message]], Awaitable[None]]


async def demand_no_worker(settings: Settings) -> None:
    """Raise StillRunning when a group of this app has members; ServerAway."""
    async with admin_client(settings) as admin:
        found = sorted(one for some in (await groups.workers_by_group(admin, settings)).values() for one in some)
    if found:
        raise StillRunning(
            f"{len(found)} workers of {settings.group} are running: {', '.join(found)}; stop them, and wait "
            f"LATELY_SESSION_TIMEOUT_S ({settings.session_timeout_s} s) for those that were killed"
        )


@asynccontextmanager
async def writing(settings: Settings, dry_run: bool) -> AsyncIterator[Write]:
    """A way to write, while nobody else can; with `dry_run` nothing is taken over and nothing written.

    Raises StillRunning when somebody takes the partitions back.
    """
    producers: dict[TP, AIOKafkaProducer] = {}

    async def write(source: TP, messages: list[Message]) -> None:
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
        for topic in dict.fromkeys(Topics(settings).feeding.values() if not dry_run else ()):
            for partition in range(settings.partitions):
                source = TP(topic, partition)
                producers[source] = AIOKafkaProducer(
                    **client_options(settings),
                    transactional_id=transactional_id(settings.group, source),
                    transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
                    max_batch_size=BATCH_BYTES,
                    max_request_size=MAX_REQUEST_BYTES,
                )
        await asyncio.gather(*(one.start() for one in producers.values()))
        yield write
    except (ProducerFenced, InvalidProducerEpoch):
        raise StillRunning(
            "a worker or another restore has begun meanwhile, and ended this one: stop it, and run the restore again"
        ) from None
    finally:
        await asyncio.gather(*(one.stop() for one in producers.values()))
