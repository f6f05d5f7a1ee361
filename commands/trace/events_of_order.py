"""`lately trace --history`: all events of an order or W3C trace, read from `orders`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import msgspec
from aiokafka import TopicPartition

from app.kafka.consume import open_consumer, read_ranges
from app.settings import Settings
from app.topics import Topics
from domain.events import REPAIRED, OrderEvent, UserErased, trace_id_of
from domain.partitioning import partition_of
from source.order_stages import decode_event

#: Maximum number of records of one fetch.
FETCH_RECORDS = 2_000


class EventFilter(NamedTuple):
    """Selects events: their bytes contain `text`, which avoids most decoding, and they match."""

    text: bytes
    matches: Callable[[OrderEvent], bool]


class LoggedEvent(NamedTuple):
    """An event, and its partition and offset in `orders`."""

    partition: int
    offset: int
    event: OrderEvent

    def to_dict(self) -> dict[str, object]:
        """Return the fields for JSON."""
        event, line = self.event, self.event.data
        return {
            "partition": self.partition, "offset": self.offset, "time": event.time, "type": event.type,
            "event_id": event.id, "order_id": str(line.order_id), "user_id": line.user_id,
            "product_name": line.product_name, "version": line.version, "traceparent": event.traceparent,
        }  # fmt: skip


def order_filter(order_id: str) -> EventFilter:
    """Return the filter for the events of an order."""
    return EventFilter(msgspec.json.encode(order_id)[1:-1], lambda event: str(event.data.order_id) == order_id)


def trace_filter(trace_id: str) -> EventFilter:
    """Return the filter for the events of a W3C trace."""
    return EventFilter(trace_id.encode(), lambda event: trace_id_of(event.traceparent) == trace_id)


async def read_history(
    settings: Settings, event_filter: EventFilter, user_id: str | None, progress: Callable[[int, int], None]
) -> AsyncIterator[LoggedEvent]:
    """Yield the selected events by partition and offset; with `user_id` only those of the user.

    `progress` receives the number of records read and the total. Raises ServerAway.
    """
    topic = Topics(settings).orders.name
    numbers = range(settings.partitions) if user_id is None else [partition_of(user_id.encode(), settings.partitions)]
    async with open_consumer(settings) as consumer:
        tps = [TopicPartition(topic, number) for number in numbers]
        firsts, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        count, total = 0, sum(ends.values()) - sum(firsts.values())
        for tp in tps:
            async for fetched in read_ranges(consumer, tp, firsts[tp], ends[tp], FETCH_RECORDS):
                for offset, key, value in fetched.records:
                    if value is None or event_filter.text not in value:
                        continue
                    event = decode_event(key, value)
                    if event is None or isinstance(event, UserErased) or not event_filter.matches(event):
                        continue
                    if user_id in (None, event.data.user_id):
                        yield LoggedEvent(tp.partition, offset, event)
                count += fetched.next - fetched.first
                progress(count, total)


def describe_states(history: list[LoggedEvent]) -> list[dict[str, object]]:
    """Describe all events of an order, each with its state.

    The state is "applied", "repeated", or "superseded by version V". Of events with the same
    version the first is applied; a repair replaces it.
    """
    applied: dict[tuple[str, str], LoggedEvent] = {}
    for logged in history:
        line = logged.event.data
        newest = applied.get((line.user_id, line.product_name))
        if newest is None or _supersedes(logged.event, newest.event):
            applied[line.user_id, line.product_name] = logged
    descriptions = []
    for logged in history:
        line = logged.event.data
        newest = applied[line.user_id, line.product_name]
        if (logged.partition, logged.offset) == (newest.partition, newest.offset):
            state = "applied"
        elif line.version == newest.event.data.version:
            state = "repeated"
        else:
            state = f"superseded by version {newest.event.data.version}"
        descriptions.append({**logged.to_dict(), "state": state})
    return descriptions


def _supersedes(event: OrderEvent, newest: OrderEvent) -> bool:
    if event.data.version == newest.data.version:
        return event.type == REPAIRED
    return event.data.version > newest.data.version
