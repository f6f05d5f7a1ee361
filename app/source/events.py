"""From a row of the outbox to the record to publish."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from app import dead_letters
from app.config import Settings
from app.errors import UnreadableEvent
from app.models import SCHEMA, UNDECODABLE, read_document
from app.source.outbox import Row
from app.topics import Topics

_CLOUDEVENTS = [("content-type", b"application/cloudevents+json")]


@dataclass(frozen=True)
class Record:
    """A record for Kafka: an event for `orders`, or what could not become one for `orders-dead`."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def record(row: Row, source: str, topics: Topics, settings: Settings) -> Record:
    """Make the event of `row`; a row that breaks a rule becomes a dead letter with the reason."""
    value = row.payload.encode()
    user_id = None
    try:
        data = _decode(value)
        user_id = data.get("user_id")
        value = _document(row, data, source)
        event = read_document(value)
    except UnreadableEvent as exc:
        key = user_id.encode() if isinstance(user_id, str) else None
        headers = dead_letters.headers(exc, topic=settings.source_outbox, partition="", offset=row.id)
        return Record(topics.orders_dead.name, dead_letters.cut(key), dead_letters.cut(value), headers)
    return Record(topics.orders.name, event.data.user_id.encode(), value, _CLOUDEVENTS)


def _decode(payload: bytes) -> dict:
    try:
        return msgspec.json.decode(payload, type=dict)
    except UNDECODABLE as exc:
        raise UnreadableEvent("malformed-json", str(exc)) from None


def _document(row: Row, data: dict, source: str) -> bytes:
    document = {
        "specversion": "1.0",
        "id": row.event_id,
        "source": source,
        "type": row.type,
        "time": row.created_at,
        "subject": str(data.get("order_id")),
        "partitionkey": data.get("user_id"),
        "datacontenttype": "application/json",
        "dataschema": SCHEMA,
        "data": {**data, "version": row.version},
    }
    if row.traceparent:
        document["traceparent"] = row.traceparent
    return msgspec.json.encode(document)
