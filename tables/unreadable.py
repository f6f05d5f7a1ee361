"""Records that an agent cannot read become dead letters: any client can write to a topic."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from app import metrics
from app.core import orders_dead
from app.logs import event_fields
from chunks import Chunk, FetchedRecord, UnreadableBytes
from domain import dead_letters
from domain.errors import Undecodable, UnreadableEvent
from domain.events import read_references

log = logging.getLogger(__name__)

T = TypeVar("T")


def decode_record(
    chunk: Chunk,
    record: FetchedRecord,
    decode: Callable[[bytes], T],
    agent: str,
    bury: bool = True,
    *,
    needs_key: bool = False,
) -> T | None:
    """Decode the value of a record; None if it cannot be decoded, or lacks a key that it needs.

    Such a record is sent to `orders-dead` with the chunk, unless `bury` is false because that was
    done before. Raises UnknownFormat for a record of another version of Lately, which is not lost:
    that version reads it.
    """
    value = record[2]
    try:
        if value is None:
            raise UnreadableEvent("empty", "the record has no value")
        if isinstance(value, UnreadableBytes):
            raise damaged_record(value)
        if needs_key and record[1] is None:
            raise UnreadableEvent("wrong-key", "the record has no key")
        return decode(value)
    except Undecodable as exc:
        error = UnreadableEvent("undecodable", str(exc))
    except UnreadableEvent as exc:
        error = exc
    if bury:
        bury_record(chunk, record, error, agent)
    return None


def damaged_record(value: UnreadableBytes) -> UnreadableEvent:
    """Return the reason of the dead letter for a record that cannot be taken apart."""
    return UnreadableEvent(dead_letters.DAMAGED, f"the record cannot be taken apart: {value.problem}")


def bury_record(chunk: Chunk, record: FetchedRecord, reason: UnreadableEvent, agent: str) -> None:
    """Send a record to `orders-dead` with the chunk."""
    (topic, partition), (offset, key, value) = chunk.tp, record
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
