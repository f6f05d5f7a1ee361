"""Reading of a partition as the engine reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import pairwise

from aiokafka import AIOKafkaConsumer
from faust.types import TP

from chunks.fetch import fetch_ranges, tune_consumer
from chunks.records import RecordRange
from tests.kit.broker import messages

LIMIT_S = 60
WAIT_S = 1.0


@asynccontextmanager
async def reading(kafka: str, *tps: TP, **settings: object) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer as the engine has it, at the beginning of these partitions."""
    settings = {"auto_offset_reset": "earliest", **settings}
    consumer = tune_consumer(AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, **settings))
    await consumer.start()
    try:
        consumer.assign(tps)
        for tp in tps:
            consumer.seek(tp, 0)
        yield consumer
    finally:
        await consumer.stop()


async def to_the_end(
    consumer: AIOKafkaConsumer, tp: TP, most: int = 1_000, end: int | None = None
) -> list[RecordRange]:
    """All runs up to `end`, or to where the committed part of the partition ends now."""
    end = (await consumer.end_offsets([tp]))[tp] if end is None else end
    runs: list[RecordRange] = []
    while not runs or runs[-1].next < end:
        runs += (await fetch_ranges(consumer, {tp}, WAIT_S, most)).get(tp, [])
    return runs


def within_limit(work: Callable[[], Coroutine]) -> None:
    """Run `work`; a test that hangs fails."""
    asyncio.run(asyncio.wait_for(work(), LIMIT_S))


def assert_contiguous(runs: list[RecordRange], first: int, end: int, most: int) -> None:
    assert (runs[0].first, runs[-1].next) == (first, end)
    assert all(one.next == following.first for one, following in pairwise(runs))
    for run in runs:
        assert len(run.records) <= most
        assert all(run.first <= offset < run.next for offset, *_ in run.records)


def delivered(runs: list[RecordRange]) -> list[tuple]:
    return [record for run in runs for record in run.records]


def expected(kafka: str, topic: str) -> list[tuple]:
    """What another client reads."""
    return [(one.offset(), one.key(), one.value()) for one in messages(kafka, topic)]
