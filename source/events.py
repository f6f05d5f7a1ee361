"""From a row of the outbox to the record to publish."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from app.settings import Settings
from app.topics import Topics
from domain import dead_letters
from domain.codec import UNDECODABLE
from domain.errors import UnreadableEvent
from domain.events import SCHEMA, read_event, valid_traceparent
from source.outbox import OutboxRow

#: The headers of an event.
EVENT_HEADERS = [("content-type", b"application/cloudevents+json")]


@dataclass(frozen=True)
class OutgoingRecord:
    """A record for Kafka: an event for `orders`, or what could not become one for `orders-dead`."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def build_record(row: OutboxRow, source: str, topics: Topics, settings: Settings) -> OutgoingRecord:
    """Make the event of `row`; a row that breaks a rule becomes a dead letter with the reason."""
    payload = value = row.payload.encode()
    key = None
    try:
        names = _names(payload)
        key = names.user_id.encode() if isinstance(names.user_id, str) else None
        value = _document(row, names, payload, source)
        read_event(key, value)
    except UnreadableEvent as exc:
        # What is no JSON would spoil the document, too.
        value = payload if exc.reason == "malformed-json" else value
        headers = dead_letters.headers(exc, topic=settings.source_outbox, partition="", offset=row.id)
        return OutgoingRecord(topics.orders_dead.name, dead_letters.cut(key), dead_letters.cut(value), headers)
    return OutgoingRecord(topics.orders.name, key, value, EVENT_HEADERS)


class _Names(msgspec.Struct):
    """What of a row is said in the event itself, too."""

    user_id: object = None
    order_id: object = None


_decode_names = msgspec.json.Decoder(_Names).decode
_encode = msgspec.json.Encoder().encode


def _names(payload: bytes) -> _Names:
    try:
        return _decode_names(payload)
    except UNDECODABLE as exc:
        raise UnreadableEvent("malformed-json", str(exc)) from None


def _document(row: OutboxRow, names: _Names, payload: bytes, source: str) -> bytes:
    fields = payload.strip()[1:-1].strip()
    # The last of two equal names counts, so no column of the shop can set the version.
    data = b'{%b%b"version":%d}' % (fields, b"," if fields else b"", row.version)
    document = {
        "specversion": "1.0",
        "id": row.event_id,
        "source": source,
        "type": row.type,
        "time": row.created_at,
        "subject": str(names.order_id),
        "partitionkey": names.user_id,
        "datacontenttype": "application/json",
        "dataschema": SCHEMA,
        "data": msgspec.Raw(data),
    }
    if valid_traceparent(row.traceparent):
        document["traceparent"] = row.traceparent
    return _encode(document)
