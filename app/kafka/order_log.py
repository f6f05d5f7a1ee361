"""Select and read parts of the event log `orders`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.errors import UnknownTarget
from app.kafka import consume
from app.settings import Settings
from app.topics import Topics
from chunks import RecordRange
from domain.partitioning import partition_of

#: Maximum number of records in a range.
RANGE_RECORDS = 5_000


@dataclass(frozen=True)
class EventSelection:
    """A selection of `orders`: one user, one order, a start.

    The start is a time (ms since 1970), or a partition and its first offset.
    """

    user: str | None = None
    order: str | None = None
    since_ms: int | None = None
    start: tuple[int, int] | None = None


class StartOffset(NamedTuple):
    """The first offset of a selection in a partition; `is_first` if no record precedes it."""

    offset: int
    is_first: bool


class OrderLog:
    """Reads the topic `orders` from any offset."""

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer) -> None:
        self._consumer, self._topic = consumer, Topics(settings).orders.name
        self._partitions = settings.partitions

    async def start_offsets(self, selection: EventSelection) -> dict[int, StartOffset]:
        """Map each partition of the selection to its start.

        Raises UnknownTarget for a partition that does not exist.
        """
        numbers: list[int] = list(range(self._partitions))
        if selection.user is not None:
            numbers = [partition_of(selection.user.encode(), self._partitions)]
        if selection.start is not None:
            numbers = [number for number in numbers if number == selection.start[0]]
            if selection.start[0] >= self._partitions:
                raise UnknownTarget(f"{self._topic} has the partitions 0 to {self._partitions - 1}")
        tps = [TopicPartition(self._topic, number) for number in numbers]
        earliest = await self._consumer.beginning_offsets(tps)
        starts = dict(earliest)
        if selection.since_ms is not None:
            ends = await self._consumer.end_offsets(tps)
            by_time = await self._consumer.offsets_for_times(dict.fromkeys(tps, selection.since_ms))
            starts = {tp: ends[tp] if by_time.get(tp) is None else by_time[tp].offset for tp in tps}
        if selection.start is not None:
            starts = {tp: max(earliest[tp], selection.start[1]) for tp in tps}
        return {tp.partition: StartOffset(starts[tp], starts[tp] == 0) for tp in tps}

    async def first_offsets(self) -> dict[int, int]:
        """Map each partition to its first offset: the events before it are deleted."""
        tps = consume.partitions_of(self._topic, self._partitions)
        return {tp.partition: offset for tp, offset in (await self._consumer.beginning_offsets(tps)).items()}

    async def end_offset(self, partition: int) -> int:
        """Return the present end offset of a partition."""
        return await consume.end_offset(self._consumer, TopicPartition(self._topic, partition))

    def read_ranges(self, partition: int, first: int, end: int) -> AsyncIterator[RecordRange]:
        """Yield the records of a partition from offset `first` up to, not including, `end`."""
        return consume.read_ranges(self._consumer, TopicPartition(self._topic, partition), first, end, RANGE_RECORDS)


@asynccontextmanager
async def open_order_log(settings: Settings) -> AsyncIterator[OrderLog]:
    """Open the event log for reading. Raises ServerAway."""
    async with consume.open_consumer(settings) as consumer:
        yield OrderLog(settings, consumer)
