"""Order events: one CloudEvents 1.0 JSON document per change of a purchase, and its rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from typing import Annotated, Final, Generic, Literal, TypeGuard, TypeVar, get_args

import msgspec

from domain.codec import UNDECODABLE
from domain.errors import UnreadableEvent
from domain.prices import MAX_PRICE_CHARS, PRICE_RULE, is_valid_price
from domain.values import DAY_US, microseconds, parse_rfc3339

PLACED: Final = "order.placed"
CHANGED: Final = "order.changed"
REMOVED: Final = "order.removed"
SNAPSHOT: Final = "order.snapshot"
REPAIRED: Final = "order.repaired"
ERASED: Final = "user.erased"
_OrderEventType = Literal["order.placed", "order.changed", "order.removed", "order.snapshot", "order.repaired"]
TYPES = frozenset({*get_args(_OrderEventType), ERASED})

_OrderSchema = Literal["urn:lately:schema:order:1"]
#: The `dataschema` of an OrderEvent.
SCHEMA: Final = "urn:lately:schema:order:1"
#: The `dataschema` of a UserErased.
ERASURE_SCHEMA: Final = "urn:lately:schema:erasure:1"

MAX_ID_BYTES = 128
MAX_ORDER_ID_BYTES = 255
MAX_PRODUCT_NAME = 1024
MAX_LABEL = 255
#: Kafka accepts records up to 1 MiB, key and headers included.
MAX_EVENT_BYTES = 900_000

_FIRST = datetime(1, 1, 1, tzinfo=timezone.utc)
_LAST = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc)

_VERSION_RULE = "version must be a whole number >= 0 and < 2^63"
_ERASURE_VERSION_RULE = "the version of an erasure must not be later than its time, in microseconds, and a day"
#: The field of an order line -> the rule for its value.
FIELD_RULES = {
    "user_id": f"user_id must be 1 to {MAX_ID_BYTES} bytes without control characters, and not '.' or '..'",
    "order_id": f"order_id must be 1 to {MAX_ORDER_ID_BYTES} bytes without control characters",
    "product_name": f"product_name must have 1 to {MAX_PRODUCT_NAME} characters",
    "price": PRICE_RULE,
    "ordered_at": "ordered_at must be a date and time in the years 1 to 9999 of UTC",
    "payment_method": f"payment_method must have at most {MAX_LABEL} characters",
    "category": f"category must have at most {MAX_LABEL} characters",
}

_DOTS = frozenset({".", ".."})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}", re.ASCII)
_TRACEPARENT = re.compile(rf"(?!ff)[0-9a-f]{{2}}-{_TRACE_ID.pattern}-(?!0{{16}})[0-9a-f]{{16}}-[0-9a-f]{{2}}", re.ASCII)


Data = TypeVar("Data")


class OrderLine(msgspec.Struct, frozen=True, gc=False):
    """One product of one order, identified by (`order_id`, `product_name`).

    Each change has a greater `version`. `order_id` is a JSON number if the shop's column is an
    integer, so that ties sort as in SQL.
    """

    user_id: str
    order_id: str | int
    product_name: str
    price: str
    ordered_at: Annotated[datetime, msgspec.Meta(tz=True)]
    version: int
    payment_method: str | None = None
    category: str | None = None


class Erasure(msgspec.Struct, frozen=True, gc=False):
    """The data of a UserErased: purchases of the user with a version up to `version` are erased."""

    user_id: str
    version: int


class CloudEvent(msgspec.Struct, Generic[Data], frozen=True, gc=False):
    """A record value of the topic `orders`: a CloudEvents 1.0 envelope and its data."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    dataschema: str
    data: Data
    subject: str | None = None
    partitionkey: str | None = None
    traceparent: str | None = None


class OrderEvent(CloudEvent[OrderLine], frozen=True, gc=False):
    """A change of one purchase."""


class UserErased(CloudEvent[Erasure], frozen=True, gc=False):
    """The erasure of a user, an event of the type ERASED."""


#: An event of the topic `orders`.
Event = OrderEvent | UserErased


_Short = Annotated[str, msgspec.Meta(max_length=MAX_LABEL)]


class _PlainOrderLine(OrderLine, frozen=True, gc=False):
    """An order line whose types guarantee all limits of its fields."""

    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]
    order_id: (
        Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ORDER_ID_BYTES)]
        | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    )
    product_name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PRODUCT_NAME)]
    price: Annotated[str, msgspec.Meta(max_length=MAX_PRICE_CHARS)]
    version: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    payment_method: _Short | None = None
    category: _Short | None = None


class _PlainEvent(OrderEvent, frozen=True, gc=False):
    """An event whose types guarantee most rules: msgspec checks them in C, which is faster."""

    type: _OrderEventType
    dataschema: _OrderSchema
    data: _PlainOrderLine


class _Envelope(msgspec.Struct):
    """The fields that decide whether this version of Lately can read the event."""

    type: str | None = None
    dataschema: str | None = None


_decode = msgspec.json.Decoder(OrderEvent).decode
_decode_plain = msgspec.json.Decoder(_PlainEvent).decode
_decode_erased = msgspec.json.Decoder(UserErased).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def read_event(key: bytes | None, value: bytes | None) -> Event:
    """Decode a record, and check every rule; its key must be the user id of the event.

    Raises UnreadableEvent with one of the reasons empty, too-large, malformed-json, wrong-type,
    unknown-type, unknown-schema, broken-rule, wrong-key.
    """
    try:
        plain = _decode_plain(value or b"")
    except UNDECODABLE:
        pass  # read_document finds the reason
    else:
        data = plain.data
        # 0x7f is the only control character that a JSON string in ASCII can contain without a
        # backslash.
        if (
            value is not None
            and value.isascii()
            and b"\\" not in value
            and b"\x7f" not in value
            and len(value) <= MAX_EVENT_BYTES
            and data.user_id not in _DOTS
            and is_valid_price(data.price)
            and 1 < data.ordered_at.year < 9999
            and key == data.user_id.encode()
        ):
            return plain
    event = read_document(value)
    if key != event.data.user_id.encode():
        raise UnreadableEvent("wrong-key", "the record's key is not the user_id of the event")
    return event


def read_events(
    records: Iterable[tuple[int, bytes | None, bytes | None]],
) -> Iterator[tuple[int, bytes, Event]]:
    """Read records (offset, key, value), and skip unreadable ones: they are dead letters already.

    Yields offset, key and event of each readable record.
    """
    for offset, key, value in records:
        if key is not None:
            with suppress(UnreadableEvent):
                yield offset, key, read_event(key, value)


def read_document(value: bytes | None) -> Event:
    """Decode an event, and check every rule except the record's key. Raises UnreadableEvent."""
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
    if event.type == ERASED:  # its data has the fields of an order, too
        return _read_erased(value)
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
        raise UnreadableEvent("broken-rule", FIELD_RULES["user_id"])
    if not 0 <= event.data.version < 2**63:
        raise UnreadableEvent("broken-rule", _VERSION_RULE)
    if event.data.version > _latest_version(event.time):
        raise UnreadableEvent("broken-rule", _ERASURE_VERSION_RULE)
    return event


def _latest_version(time: str) -> int:
    """Return the highest version that an erasure can have at a time, by clocks that differ by a day at most.

    Versions are near the time in microseconds. A higher one would erase the purchases of the future.
    """
    try:
        return microseconds(parse_rfc3339(time)) + DAY_US
    except (ValueError, TypeError, OverflowError):
        return -1


def _check_envelope(event: Event | _Envelope) -> None:
    schema = ERASURE_SCHEMA if event.type == ERASED else SCHEMA
    if event.dataschema is not None and event.dataschema != schema:
        raise UnreadableEvent("unknown-schema", f"dataschema {_shorten(event.dataschema)} is not {schema!r}")
    if event.type is not None and event.type not in TYPES:
        raise UnreadableEvent("unknown-type", f"type {_shorten(event.type)} is none of {', '.join(sorted(TYPES))}")


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}…")


def find_broken_rule(line: OrderLine) -> str | None:
    """Describe the first rule that `line` breaks, or return None; rules: docs/protocol.md."""
    if not is_valid_user_id(line.user_id):
        return FIELD_RULES["user_id"]
    if not is_valid_order_id(str(line.order_id)):
        return FIELD_RULES["order_id"]
    if isinstance(line.order_id, int) and not -(2**63) <= line.order_id < 2**64:
        return "order_id must fit in 64 bits if it is an integer"
    if not 1 <= len(line.product_name) <= MAX_PRODUCT_NAME:
        return FIELD_RULES["product_name"]
    if not is_valid_price(line.price):
        return FIELD_RULES["price"]
    if not _FIRST <= line.ordered_at <= _LAST:
        return FIELD_RULES["ordered_at"]
    for name in ("payment_method", "category"):
        if len(getattr(line, name) or "") > MAX_LABEL:
            return FIELD_RULES[name]
    if not 0 <= line.version < 2**63:
        return _VERSION_RULE
    return None


def is_valid_user_id(user_id: str) -> bool:
    """Return True if `user_id` can be a record's key and a path segment of a URL."""
    return 1 <= len(user_id.encode()) <= MAX_ID_BYTES and not _CONTROL.search(user_id) and user_id not in _DOTS


def is_valid_order_id(order_id: str) -> bool:
    """Return True if `order_id` is allowed; check an integer as text."""
    return 1 <= len(order_id.encode()) <= MAX_ORDER_ID_BYTES and not _CONTROL.search(order_id)


def is_valid_traceparent(text: str | None) -> TypeGuard[str]:
    """Return True if `text` is a traceparent as defined by W3C Trace Context."""
    return text is not None and _TRACEPARENT.fullmatch(text) is not None


def trace_id_of(traceparent: str | None) -> str | None:
    """Return the trace id of a traceparent; None if it is invalid."""
    return traceparent.split("-")[1] if is_valid_traceparent(traceparent) else None


def is_valid_trace_id(text: str) -> bool:
    """Return True if `text` is a valid trace id."""
    return _TRACE_ID.fullmatch(text) is not None


class _DataReference(msgspec.Struct):
    order_id: str | int | None = None


class _EventReference(msgspec.Struct):
    data: _DataReference | None = None
    traceparent: str | None = None


_decode_reference = msgspec.json.Decoder(_EventReference).decode


def read_references(value: bytes | None) -> tuple[str | int | None, str | None]:
    """Return order id and traceparent of a possibly invalid document; None for a missing field."""
    try:
        reference = _decode_reference(value or b"")
    except UNDECODABLE:
        return None, None
    return reference.data.order_id if reference.data else None, reference.traceparent
