"""Conversion of a row of the outbox to the Kafka record of its event."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import NamedTuple

import msgspec

from app.settings import Settings
from app.topics import Topics
from domain import dead_letters
from domain.codec import UNDECODABLE
from domain.errors import UnreadableEvent
from domain.events import CHANGED, REMOVED, SCHEMA, SNAPSHOT, is_valid_traceparent, read_event
from domain.prices import is_valid_price
from source import shop_row
from source.outbox_row import OutboxRow
from source.outbox_table import displayed_outbox

#: The Kafka headers of an event.
EVENT_HEADERS = [("content-type", b"application/cloudevents+json")]
#: The namespace of the ids of events that remove the purchase of a row that breaks a rule.
_REMOVALS = uuid.UUID("8f1f9c0e-58a5-4b65-8f5b-3f6f3a5d3a41")


def event_source(server: str, settings: Settings) -> str:
    """Return the CloudEvents source of events from the shop's table on a database server."""
    return f"/mysql/{server}/{settings.mysql_database}/{settings.source_table}"


class OutgoingRecord(NamedTuple):
    """A record for Kafka: an event for `orders`, or a dead letter for `orders-dead`."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    #: The id of an event; None for a dead letter.
    event_id: str | None = None


def build_records(row: OutboxRow, source: str, topics: Topics, settings: Settings) -> list[OutgoingRecord]:
    """Build all records of `row`: its event, or a dead letter and the removal of the purchase.

    A changed row that breaks a rule cannot be shown any more. Without the removal the tables would
    keep its former values. A new row has no former values.
    """
    record = build_record(row, source, topics, settings)
    if record.topic == topics.orders.name or row.type not in (CHANGED, SNAPSHOT) or row.problem is not None:
        return [record]
    # A repetition of the row results in the same event.
    event_id = str(uuid.uuid5(_REMOVALS, row.event_id))
    removal = _build_removal(replace(row, event_id=event_id, type=REMOVED), source, topics)
    return [record] if removal is None else [record, removal]


def build_record(row: OutboxRow, source: str, topics: Topics, settings: Settings) -> OutgoingRecord:
    """Build the event of `row`; a row that breaks a rule becomes a dead letter with the reason.

    The removal of such a row is an event all the same: only the identity of the purchase counts.
    """
    payload = value = row.payload.encode()
    key = None
    try:
        columns = _read_columns(payload)
        key = columns.user_id.encode() if isinstance(columns.user_id, str) else None
        value = _build_document(row, columns, payload, source)
        if row.problem is not None:
            raise UnreadableEvent("broken-rule", row.problem)
        read_event(key, value)
    except UnreadableEvent as exc:
        removal = _build_removal(row, source, topics) if row.type == REMOVED and row.problem is None else None
        if removal is not None:
            return removal
        # An invalid payload would make the whole document invalid JSON, so it is stored alone.
        value = payload if exc.reason == "malformed-json" else value
        headers = dead_letters.build_headers(exc, topic=displayed_outbox(settings), partition="", offset=row.id)
        return OutgoingRecord(
            topics.orders_dead.name, dead_letters.truncate_part(key), dead_letters.truncate_part(value), headers
        )
    return OutgoingRecord(topics.orders.name, key, value, EVENT_HEADERS, row.event_id)


def _build_removal(row: OutboxRow, source: str, topics: Topics) -> OutgoingRecord | None:
    """Build the event that removes the purchase of `row`; None if its identity is invalid."""
    removal = shop_row.build_removal(shop_row.decode_row(row.payload).fields)
    if removal is None:
        return None
    columns = _Columns(removal["user_id"], removal["order_id"])
    key, value = str(columns.user_id).encode(), _build_document(row, columns, _encode(removal), source)
    try:
        read_event(key, value)
    except UnreadableEvent:
        return None
    return OutgoingRecord(topics.orders.name, key, value, EVENT_HEADERS, row.event_id)


class _Columns(msgspec.Struct):
    """The fields of a payload that the envelope of the event repeats, and the price."""

    user_id: object = None
    order_id: object = None
    price: object = None


_decode_columns = msgspec.json.Decoder(_Columns).decode
_encode = msgspec.json.Encoder().encode


def _read_columns(payload: bytes) -> _Columns:
    try:
        return _decode_columns(payload)
    except UNDECODABLE as exc:
        raise UnreadableEvent("malformed-json", str(exc)) from None


def _decode_fields(payload: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(payload, type=dict[str, object])
    except UNDECODABLE as exc:
        raise UnreadableEvent("malformed-json", str(exc)) from None


def _build_document(row: OutboxRow, columns: _Columns, payload: bytes, source: str) -> bytes:
    price = columns.price
    if isinstance(price, str) and not is_valid_price(price):
        payload = _encode(shop_row.normalize(_decode_fields(payload)))
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
        "subject": str(columns.order_id),
        "partitionkey": columns.user_id,
        "datacontenttype": "application/json",
        "dataschema": SCHEMA,
        "data": msgspec.Raw(data),
    }
    if is_valid_traceparent(row.traceparent):
        document["traceparent"] = row.traceparent
    return _encode(document)
