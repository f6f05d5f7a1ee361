"""What an order event is: one CloudEvents 1.0 JSON document per change of a purchase, and the rules it obeys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from domain.codec import UNDECODABLE
from domain.errors import UnreadableEvent

PLACED = "order.placed"
CHANGED = "order.changed"
REMOVED = "order.removed"
SNAPSHOT = "order.snapshot"
REPAIRED = "order.repaired"
ERASED = "user.erased"
TYPES = frozenset({PLACED, CHANGED, REMOVED, SNAPSHOT, REPAIRED, ERASED})

SCHEMA = "urn:lately:schema:order:1"
#: Of the data of a `user.erased`.
ERASURE_SCHEMA = "urn:lately:schema:erasure:1"

MAX_ID_BYTES = 128
MAX_ORDER_ID_BYTES = 255
MAX_PRODUCT_NAME = 1024
MAX_LABEL = 255
#: Kafka takes records up to 1 MiB, key and headers included.
MAX_EVENT_BYTES = 900_000

_FIRST = datetime(1, 1, 1, tzinfo=timezone.utc)
_LAST = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc)

_USER_ID_RULE = f"user_id must be 1 to {MAX_ID_BYTES} bytes without control characters, and not '.' or '..'"
_VERSION_RULE = "version must be a whole number >= 0 and < 2^63"

_DOTS = frozenset({".", ".."})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PRICE = re.compile(r"[0-9]{1,18}(\.[0-9]{1,10})?", re.ASCII)


# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}", re.ASCII)
_TRACEPARENT = re.compile(rf"(?!ff)[0-9a-f]{{2}}-{_TRACE_ID.pattern}-(?!0{{16}})[0-9a-f]{{16}}-[0-9a-f]{{2}}", re.ASCII)


class OrderLine(msgspec.Struct, frozen=True, gc=False):
    """One product of one order; (`order_id`, `product_name`) names it, `version` grows with each change.

    `order_id` is a JSON number where the shop's column is an integer, so that ties sort as in SQL.
    """

    user_id: str
    order_id: str | int
    product_name: str
    price: str
    ordered_at: Annotated[datetime, msgspec.Meta(tz=True)]
    version: int
    payment_method: str | None = None
    category: str | None = None


class Event(msgspec.Struct, frozen=True, gc=False):
    """A change of one purchase, as it lies in the topic `orders`."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    dataschema: str
    data: OrderLine
    subject: str | None = None
    partitionkey: str | None = None
    traceparent: str | None = None


class Erasure(msgspec.Struct, frozen=True, gc=False):
    """Nothing of the user is to be remembered that is not newer than `version`."""

    user_id: str
    version: int


class UserErased(Event, frozen=True, gc=False):
    """An event of the type ERASED."""

    data: Erasure


_Short = Annotated[str, msgspec.Meta(max_length=MAX_LABEL)]


class _PlainPurchase(OrderLine, frozen=True, gc=False):
    """A purchase that is within all limits by its types alone."""

    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]
    order_id: (
        Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ORDER_ID_BYTES)]
        | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    )
    product_name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PRODUCT_NAME)]
    version: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    payment_method: _Short | None = None
    category: _Short | None = None


class _PlainEvent(Event, frozen=True, gc=False):
    """An event of a known type; msgspec checks in C what the rules below check in Python."""

    type: Literal[PLACED, CHANGED, REMOVED, SNAPSHOT, REPAIRED]
    dataschema: Literal[SCHEMA]
    data: _PlainPurchase


class _Envelope(msgspec.Struct):
    """The part of an event that tells whether this version of Lately can read the rest."""

    type: str | None = None
    dataschema: str | None = None


_decode = msgspec.json.Decoder(Event).decode
_decode_plain = msgspec.json.Decoder(_PlainEvent).decode
_decode_erased = msgspec.json.Decoder(UserErased).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def read_event(key: bytes | None, value: bytes | None) -> Event:
    """Decode the record (`key`, `value`) and check every rule; the key must be the event's user id.

    Raises UnreadableEvent with one of the reasons empty, too-large, malformed-json, wrong-type, unknown-type,
    unknown-schema, broken-rule, wrong-key.
    """
    try:
        event = _decode_plain(value)
    except (TypeError, *UNDECODABLE):
        pass  # the careful way finds out what is wrong
    else:
        data = event.data
        # JSON in ASCII without a backslash has no control characters in its texts but this one.
        if (
            value.isascii()
            and b"\\" not in value
            and b"\x7f" not in value
            and len(value) <= MAX_EVENT_BYTES
            and data.user_id not in _DOTS
            and _valid_price(data.price)
            and 1 < data.ordered_at.year < 9999
            and key == data.user_id.encode()
        ):
            return event
    event = read_document(value)
    if key != event.data.user_id.encode():
        raise UnreadableEvent("wrong-key", "the record's key is not the user_id of the event")
    return event


def read_events(
    records: Iterable[tuple[int, bytes | None, bytes | None]],
) -> Iterator[tuple[int, bytes, Event]]:
    """Offset, key and event of the records that can be read; the others are dead letters already."""
    for offset, key, value in records:
        with suppress(UnreadableEvent):
            yield offset, key, read_event(key, value)


def read_document(value: bytes | None) -> Event:
    """Decode one event document and check every rule but the record's key; raises UnreadableEvent."""
    if not value:
        raise UnreadableEvent("empty", "the record has no value")
    if len(value) > MAX_EVENT_BYTES:
        raise UnreadableEvent("too-large", f"the event has {len(value)} bytes, the limit is {MAX_EVENT_BYTES}")
    try:
        event = _decode(value)
    except msgspec.ValidationError as exc:
        envelope = _read_envelope(value)
        _check_envelope(envelope)
        if envelope.type == ERASED:
            return _read_erased(value)
        raise UnreadableEvent("wrong-type", str(exc)) from None
    except UNDECODABLE as exc:
        raise UnreadableEvent("malformed-json", str(exc)) from None
    _check_envelope(event)
    broken = find_broken_rule(event.data)
    if broken:
        raise UnreadableEvent("broken-rule", broken)
    return event


def _read_envelope(value: bytes) -> _Envelope:
    try:
        return _decode_envelope(value)
    except msgspec.ValidationError as exc:
        raise UnreadableEvent("wrong-type", str(exc)) from None
    except UNDECODABLE as exc:
        raise UnreadableEvent("malformed-json", str(exc)) from None


def _read_erased(value: bytes) -> UserErased:
    try:
        event = _decode_erased(value)
    except msgspec.ValidationError as exc:
        raise UnreadableEvent("wrong-type", str(exc)) from None
    if not is_valid_user_id(event.data.user_id):
        raise UnreadableEvent("broken-rule", _USER_ID_RULE)
    if not 0 <= event.data.version < 2**63:
        raise UnreadableEvent("broken-rule", _VERSION_RULE)
    return event


def _check_envelope(event: Event | _Envelope) -> None:
    schema = ERASURE_SCHEMA if event.type == ERASED else SCHEMA
    if event.dataschema is not None and event.dataschema != schema:
        raise UnreadableEvent("unknown-schema", f"dataschema {_cut(event.dataschema)} is not {schema!r}")
    if event.type is not None and event.type not in TYPES:
        raise UnreadableEvent("unknown-type", f"type {_cut(event.type)} is none of {', '.join(sorted(TYPES))}")


def _cut(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}…")


def find_broken_rule(line: OrderLine) -> str | None:
    """The rule that `purchase` breaks, in words, or None; docs/protocol.md lists them."""
    if not is_valid_user_id(line.user_id):
        return _USER_ID_RULE
    if not is_valid_order_id(str(line.order_id)):
        return f"order_id must be 1 to {MAX_ORDER_ID_BYTES} bytes without control characters"
    if isinstance(line.order_id, int) and not -(2**63) <= line.order_id < 2**64:
        return "order_id must fit in 64 bits where it is an integer"
    if not 1 <= len(line.product_name) <= MAX_PRODUCT_NAME:
        return f"product_name must have 1 to {MAX_PRODUCT_NAME} characters"
    if not _valid_price(line.price):
        return "price must be a decimal number >= 0 with at most 18 digits before the point and 10 after it"
    if not _FIRST <= line.ordered_at <= _LAST:
        return "ordered_at must be in the years 1 to 9999 of UTC"
    for name in ("payment_method", "category"):
        if len(getattr(line, name) or "") > MAX_LABEL:
            return f"{name} must have at most {MAX_LABEL} characters"
    if not 0 <= line.version < 2**63:
        return _VERSION_RULE
    return None


@lru_cache(maxsize=65_536)
def _valid_price(price: str) -> bool:
    return _PRICE.fullmatch(price) is not None


def is_valid_user_id(user_id: str) -> bool:
    """Whether `user_id` can be a record's key and a path segment of a URL."""
    return 1 <= len(user_id.encode()) <= MAX_ID_BYTES and not _CONTROL.search(user_id) and user_id not in _DOTS


def is_valid_order_id(order_id: str) -> bool:
    """Whether `order_id`, a number as text, can be an order's."""
    return 1 <= len(order_id.encode()) <= MAX_ORDER_ID_BYTES and not _CONTROL.search(order_id)


def is_valid_traceparent(text: str | None) -> bool:
    """Whether `text` is a trace context of the W3C."""
    return text is not None and _TRACEPARENT.fullmatch(text) is not None


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace that a trace context names, None for what is none."""
    return traceparent.split("-")[1] if is_valid_traceparent(traceparent) else None


def is_valid_trace_id(text: str) -> bool:
    """Whether `text` is the id of a trace, as a traceparent has it."""
    return _TRACE_ID.fullmatch(text) is not None


class _NamesOfData(msgspec.Struct):
    order_id: str | int | None = None


class _Names(msgspec.Struct):
    data: _NamesOfData | None = None
    traceparent: str | None = None


_decode_names = msgspec.json.Decoder(_Names).decode


def read_references(value: bytes | None) -> tuple[str | int | None, str | None]:
    """Order id and traceparent of a document that may break any rule; None where it does not say them."""
    try:
        said = _decode_names(value or b"")
    except UNDECODABLE:
        return None, None
    return said.data.order_id if said.data else None, said.traceparent
