"""Decode the events of a chunk; unreadable records become dead letters."""

from __future__ import annotations

import logging
from collections import Counter

from app import metrics
from app.core import orders_dead
from app.logs import event_fields
from chunks import Chunk
from domain import dead_letters
from domain.errors import UnreadableEvent
from domain.events import Event, read_event, read_references

log = logging.getLogger(__name__)


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
                _send_dead_letter(chunk, offset, key, value, exc, agent)
        else:
            events.append((offset, key or b"", event))
    for kind, count in Counter([event.type for _, _, event in events]).items():
        metrics.EVENTS.labels(agent, kind, "applied").inc(count)
    return events


def _send_dead_letter(
    chunk: Chunk, offset: int, key: bytes | None, value: bytes | None, reason: UnreadableEvent, agent: str
) -> None:
    topic, partition = chunk.tp
    log.warning(
        "unreadable event at %s[%s]@%s goes to %s: %s: %s",
        topic, partition, offset, orders_dead.get_topic_name(), reason.reason, reason,
        extra=event_fields(*read_references(value), topic=topic, partition=partition, offset=offset),
    )  # fmt: skip
    chunk.send(
        orders_dead.get_topic_name(),
        partition,
        dead_letters.truncate_part(key),
        dead_letters.truncate_part(value),
        dead_letters.build_headers(reason, topic=topic, partition=partition, offset=offset),
    )
    metrics.EVENTS.labels(agent, "unknown", "dead").inc()
    metrics.DEAD_LETTERS.labels(reason.reason).inc()
