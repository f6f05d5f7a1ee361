"""Parts of the event log `orders`: which there are, and reading one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP

from app.errors import Unknown
from app.kafka.consume import consuming
from app.settings import Settings
from app.topics import Topics
from chunks.chunk import Run
from chunks.fetch import fetch
from domain.partitioning import partition_of

RUN_RECORDS = 5_000


@dataclass(frozen=True)
class Part:
    """What of `orders` is meant: one user, one order, from a moment (ms since 1970) or a partition's offset on."""

    user: str | None = None
    order: str | None = None
    since: int | None = None
    start: tuple[int, int] | None = None


class Log:
    """The topic `orders`, read from where one likes."""

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer) -> None:
        self._consumer, self._topic = consumer, Topics(settings).orders.name
        self._partitions = settings.partitions

    async def begins(self, part: Part) -> dict[int, tuple[int, bool]]:
        """Partition -> the first offset of the part, and whether nothing came before it. Raises Unknown."""
        numbers: list[int] = list(range(self._partitions))
        if part.user is not None:
            numbers = [partition_of(part.user.encode(), self._partitions)]
        if part.start is not None:
            numbers = [number for number in numbers if number == part.start[0]]
            if part.start[0] >= self._partitions:
                raise Unknown(f"{self._topic} has the partitions 0 to {self._partitions - 1}")
        tps = [TopicPartition(self._topic, number) for number in numbers]
        first = await self._consumer.beginning_offsets(tps)
        wanted = dict(first)
        if part.since is not None:
            ends = await self._consumer.end_offsets(tps)
            found = await self._consumer.offsets_for_times(dict.fromkeys(tps, part.since))
            wanted = {tp: ends[tp] if found.get(tp) is None else found[tp].offset for tp in tps}
        if part.start is not None:
            wanted = {tp: max(first[tp], part.start[1]) for tp in tps}
        return {tp.partition: (wanted[tp], wanted[tp] == 0) for tp in tps}

    async def end(self, partition: int) -> int:
        """Where the partition ends now."""
        tp = TopicPartition(self._topic, partition)
        return (await self._consumer.end_offsets([tp]))[tp]

    async def read(self, partition: int, first: int, end: int) -> AsyncIterator[Run]:
        """The records of a partition from `first` up to, not including, `end`."""
        tp, at = TopicPartition(self._topic, partition), first
        if at >= end:
            return
        self._consumer.assign([tp])
        self._consumer.seek(tp, at)
        while at < end:
            for run in (await fetch(self._consumer, {tp}, 1.0, RUN_RECORDS)).get(TP(*tp), ()):
                if at < end:
                    yield Run(at, min(run.next, end), [one for one in run.records if one[0] < end], end)
                    at = run.next


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[Log]:
    """The log, to be read. Raises ServerAway."""
    async with consuming(settings) as consumer:
        yield Log(settings, consumer)
