"""Decode the events of a chunk; unreadable records become dead letters."""

from __future__ import annotations

from collections import Counter

from app import metrics
from chunks import Chunk, UnreadableBytes
from domain.errors import UnreadableEvent
from domain.events import Event, read_event
from tables.unreadable import bury_record, damaged_record


def decode_events(chunk: Chunk, agent: str, bury: bool = True) -> list[tuple[int, bytes, Event]]:
    """Return offset, key and event of the readable records of `chunk`.

    The others are sent to `orders-dead` with the chunk, unless `bury` is false because another
    agent does that.
    """
    events: list[tuple[int, bytes, Event]] = []
    for offset, key, value in chunk.records:
        try:
            event = read_event(key, value)
        except UnreadableEvent as exc:
            if bury:
                reason = damaged_record(value) if isinstance(value, UnreadableBytes) else exc
                bury_record(chunk, (offset, key, value), reason, agent)
        else:
            events.append((offset, key or b"", event))
    for kind, count in Counter([event.type for _, _, event in events]).items():
        metrics.EVENTS.labels(agent, kind, "applied").inc(count)
    return events
