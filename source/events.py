"""Conversion of a row of the outbox to the Kafka record of its event."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from app.settings import Settings
from app.topics import Topics
from domain import dead_letters
from domain.codec import UNDECODABLE
from domain.errors import UnreadableEvent
from domain.events import SCHEMA, is_valid_traceparent, read_event
from source.outbox import OutboxRow
from source.outbox_table import displayed_outbox

#: The Kafka headers of an event.
EVENT_HEADERS = [("content-type", b"application/cloudevents+json")]


@dataclass(frozen=True)
class OutgoingRecord:
    """A record for Kafka: an event for `orders`, or a dead letter for `orders-dead`."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def build_record(row: OutboxRow, source: str, topics: Topics, settings: Settings) -> OutgoingRecord:
    """Build the event of `row`; a row that breaks a rule becomes a dead letter with the reason."""
    payload = value = row.payload.encode()
    key = None
    try:
        ids = _read_ids(payload)
        key = ids.user_id.encode() if isinstance(ids.user_id, str) else None
        value = _build_document(row, ids, payload, source)
        read_event(key, value)
    except UnreadableEvent as exc:
        # An invalid payload would make the whole document invalid JSON, so it is stored alone.
        value = payload if exc.reason == "malformed-json" else value
        headers = dead_letters.build_headers(exc, topic=displayed_outbox(settings), partition="", offset=row.id)
        return OutgoingRecord(
            topics.orders_dead.name, dead_letters.truncate_part(key), dead_letters.truncate_part(value), headers
        )
    return OutgoingRecord(topics.orders.name, key, value, EVENT_HEADERS)


class _Ids(msgspec.Struct):
    """The fields of a payload that the envelope of the event repeats."""

    user_id: object = None
    order_id: object = None


_decode_ids = msgspec.json.Decoder(_Ids).decode
_encode = msgspec.json.Encoder().encode


def _read_ids(payload: bytes) -> _Ids:
    try:
        return _decode_ids(payload)
    except UNDECODABLE as exc:
        raise UnreadableEvent("malformed-json", str(exc)) from None


def _build_document(row: OutboxRow, ids: _Ids, payload: bytes, source: str) -> bytes:
    fields = payload.strip()[1:-1].strip()
    # Of two equal names JSON decoders use the last one, so no column of the shop can set the
    # version.
    data = b'{%b%b"version":%d}' % (fields, b"," if fields else b"", row.version)
    document = {
        "specversion": "1.0",
        "id": row.event_id,
        "source": source,
        "type": row.type,
        "time": row.created_at,
        "subject": str(ids.order_id),
        "partitionkey": ids.user_id,
        "datacontenttype": "application/json",
        "dataschema": SCHEMA,
        "data": msgspec.Raw(data),
    }
    if is_valid_traceparent(row.traceparent):
        document["traceparent"] = row.traceparent
    return _encode(document)
