"""What an agent does first: read the events, and bury what cannot be read among the dead letters."""

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


def readable(chunk: Chunk, agent: str, bury: bool = True) -> list[tuple[int, bytes, Event]]:
    """The events of `chunk` that can be read, each with its offset and key.

    The others go to `orders-dead` with the chunk, unless another agent sees to that.
    """
    found = []
    for offset, key, value in chunk.records:
        try:
            found.append((offset, key, read_event(key, value)))
        except UnreadableEvent as exc:
            if bury:
                _bury(chunk, offset, key, value, exc, agent)
    for kind, count in Counter([event.type for _, _, event in found]).items():
        metrics.EVENTS.labels(agent, kind, "applied").inc(count)
    return found


def _bury(
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
    metrics.DEAD.labels(reason.reason).inc()
