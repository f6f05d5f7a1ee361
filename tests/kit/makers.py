"""Makers of events, purchases and outbox rows: a test names only the fields that matter to it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import msgspec

from domain.events import ERASED, ERASURE_SCHEMA, PLACED, SCHEMA, Erasure, Event, OrderEvent, OrderLine, UserErased
from source.outbox_row import OutboxRow

MORNING = datetime(2026, 1, 31, 8, 0, tzinfo=timezone.utc)
SOURCE = "/mysql/3e11fa47-71ca-11e1-9e33-c80aa9429562/shop/orders"
EVENT_ID = "6ccd780c-baba-1026-9564-5b8c656024db"
TIME = "2026-01-31T08:00:01.000000Z"


def at(hours: float) -> datetime:
    """So many hours after the morning on which all tests begin."""
    return MORNING + timedelta(hours=hours)


def purchase(
    *,
    user_id: str = "ann",
    order_id: str | int = "o-1",
    product_name: str = "tea",
    price: str = "19.90",
    ordered_at: datetime = MORNING,
    version: int = 1,
    payment_method: str | None = "card",
    category: str | None = None,
) -> OrderLine:
    """One product of one order."""
    return OrderLine(user_id, order_id, product_name, price, ordered_at, version, payment_method, category)


def event(
    type: str = PLACED,
    *,
    specversion: str = "1.0",
    id: str = EVENT_ID,
    source: str = SOURCE,
    time: str = TIME,
    dataschema: str = SCHEMA,
    subject: str | None = None,
    partitionkey: str | None = None,
    traceparent: str | None = None,
    data: OrderLine | None = None,
    **fields: object,
) -> OrderEvent:
    """An event about `data`, or about the purchase that `fields` describe."""
    data = purchase(**fields) if data is None else data
    return OrderEvent(
        specversion=specversion,
        id=id,
        source=source,
        type=type,
        time=time,
        dataschema=dataschema,
        data=data,
        subject=str(data.order_id) if subject is None else subject,
        partitionkey=data.user_id if partitionkey is None else partitionkey,
        traceparent=traceparent,
    )


def wire(event: Event) -> tuple[bytes, bytes]:
    """Key and value of the record that carries `event`."""
    return event.data.user_id.encode(), msgspec.json.encode(event)


def row(
    payload: str | None = None,
    *,
    id: int = 7,
    version: int = 7,
    event_id: str = EVENT_ID,
    type: str = PLACED,
    traceparent: str | None = None,
    created_at: str = TIME,
    **columns: object,
) -> OutboxRow:
    """A row of the outbox with `payload`, or with the JSON that a trigger makes of `columns`."""
    order = {
        "user_id": "ann",
        "order_id": "o-1",
        "product_name": "tea",
        "price": "19.90",
        "ordered_at": "2026-01-31T08:00:00.000000Z",
        "payment_method": "card",
    }
    text = json.dumps({**order, **columns}, ensure_ascii=False) if payload is None else payload
    return OutboxRow(id, version, event_id, type, text, traceparent, created_at)


def erasure(version: int, user_id: str = "ann") -> UserErased:
    """The event that erases a user."""
    return UserErased("1.0", "id", "/lately", ERASED, "2026-01-31T08:00:00Z", ERASURE_SCHEMA,
                      Erasure(user_id, version))  # fmt: skip
