"""All events of an order or of a trace, read from the log from its beginning: for what the tables do not remember."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import msgspec
from aiokafka import TopicPartition
from faust.types import TP

from app.kafka.consume import open_consumer
from app.settings import Settings
from app.topics import Topics
from chunks import fetch_ranges
from domain.events import ERASED, REPAIRED, Event, trace_id_of
from domain.partitioning import partition_of
from source.order_stages import decode_event

CHUNK = 2_000


class EventFilter(NamedTuple):
    """Which events: what their bytes hold, by which most others are left undecoded, and what they say."""

    text: bytes
    says: Callable[[Event], bool]


def of_order(order_id: str) -> EventFilter:
    """The events of an order."""
    return EventFilter(msgspec.json.encode(order_id)[1:-1], lambda event: str(event.data.order_id) == order_id)


def of_trace(trace_id: str) -> EventFilter:
    """The events of a W3C trace."""
    return EventFilter(trace_id.encode(), lambda event: trace_id_of(event.traceparent) == trace_id)


async def events(
    settings: Settings, wanted: EventFilter, user_id: str | None, progress: Callable[[int, int], None]
) -> AsyncIterator[tuple[int, int, Event]]:
    """(partition, offset, event) of what is wanted, in the order of their offsets; a user has one partition only.

    `progress` is told how many records were passed, and how many there are. Raises ServerAway.
    """
    topic = Topics(settings).orders.name
    numbers = range(settings.partitions) if user_id is None else [partition_of(user_id.encode(), settings.partitions)]
    async with open_consumer(settings) as consumer:
        tps = [TopicPartition(topic, number) for number in numbers]
        first, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        passed, total = 0, sum(ends.values()) - sum(first.values())
        for tp in tps:
            consumer.assign([tp])
            consumer.seek(tp, at := first[tp])
            while at < ends[tp]:
                for run in (await fetch_ranges(consumer, [TP(*tp)], 1.0, CHUNK)).get(TP(*tp), ()):
                    passed, at = passed + run.next - at, run.next
                    for offset, key, value in run.records:
                        if value is not None and wanted.text in value:
                            event = decode_event(key, value)
                            if event is None or event.type == ERASED or not wanted.says(event):
                                continue
                            if user_id in (None, event.data.user_id):
                                yield tp.partition, offset, event
                progress(passed, total)


def shown(partition: int, offset: int, event: Event) -> dict[str, object]:
    """An event for people and programs."""
    return {
        "partition": partition, "offset": offset, "time": event.time, "type": event.type, "event_id": event.id,
        "order_id": str(event.data.order_id), "user_id": event.data.user_id, "product_name": event.data.product_name,
        "version": event.data.version, "traceparent": event.traceparent,
    }  # fmt: skip


def judged(found: list[tuple[int, int, Event]]) -> list[dict[str, object]]:
    """All events of an order, each with what became of it: applied, repeated, or superseded by a version.

    Of equal versions the first counts, and a repair replaces it.
    """
    counting: dict[tuple[str, str], tuple[int, int, int]] = {}
    for partition, offset, event in found:
        key, version = (event.data.user_id, event.data.product_name), event.data.version
        known = counting.get(key)
        if known is None or version > known[0] or (version == known[0] and event.type == REPAIRED):
            counting[key] = (version, partition, offset)
    rows = []
    for partition, offset, event in found:
        version, *place = counting[event.data.user_id, event.data.product_name]
        if [partition, offset] == place:
            became = "applied"
        elif event.data.version == version:
            became = "repeated"
        else:
            became = f"superseded by version {version}"
        rows.append({**shown(partition, offset, event), "state": became})
    return rows
