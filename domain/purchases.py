"""Purchases as last-writer-wins registers: pure functions from state and event to state.

The state does not depend on the order, the repetition or the batching of the events: the newest
version of each purchase wins, and no purchase is ever dropped
(docs/decisions/002-every-purchase-as-a-register.md).

One value contains the newest purchases of a user (RecentPurchases). Each other purchase has a key
and a value of its own; together they are the overflow of the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import overload

import msgspec

from domain.codec import decode_checked, encode
from domain.events import REMOVED, REPAIRED, OrderEvent
from domain.values import microseconds

RECENT_FORMAT = 3
#: The format of RecentPurchases of a user who was erased at least once.
ERASED_FORMAT = 4
OVERFLOW_FORMAT = 1

#: The position of a purchase in ORDER BY ordered_at, order_id, product_name.
SortKey = tuple[int, int, int, str, str]


class Purchase(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The newest version of one purchase. A removed purchase remains, with `live` false.

    `ordered_at` is in microseconds since 1970 UTC, `price` is a decimal string. `offset` is the
    position of the event of this version in the user's partition of `orders`, -1 if unknown.
    """

    order_id: str | int
    product_name: str
    version: int
    live: bool
    ordered_at: int
    price: str
    payment_method: str | None
    category: str | None
    offset: int = -1

    @property
    def identity(self) -> tuple[str | int, str]:
        """The order id and product name, which identify the purchase among those of its user."""
        return (self.order_id, self.product_name)

    @property
    def sort_key(self) -> SortKey:
        """The position in ORDER BY ordered_at, order_id, product_name; texts compare by bytes.

        Integer order ids compare as numbers, and are less than texts.
        """
        if isinstance(self.order_id, int):
            return (self.ordered_at, 0, self.order_id, "", self.product_name)
        return (self.ordered_at, 1, 0, self.order_id, self.product_name)


#: The key function for sorting purchases.
purchase_sort_key = attrgetter("sort_key")


class RecentPurchases(msgspec.Struct, frozen=True, array_like=True):
    """The newest purchases of a user, in no order.

    No purchase of the overflow is both live and ordered after `floor` (microseconds); None: the
    overflow is empty. Purchases with a version up to `erased_version` are erased forever; -1: none
    is.
    """

    format: int
    floor: int | None = None
    purchases: tuple[Purchase, ...] = ()
    erased_version: int = -1


class _OverflowEntry(msgspec.Struct, frozen=True, array_like=True):
    format: int
    purchase: Purchase


#: The effect of an event on a product: product name, price before, price after; None: not
#: purchased.
PriceChange = tuple[str, str | None, str | None]
#: The addition (+1) or removal (-1) of a purchase: user id, product name, category, ordered at,
#: price, sign.
PurchaseChange = tuple[str, str, str | None, int, str, int]

#: Reads the value of a key of the overflow.
ReadOverflow = Callable[[bytes], bytes | None]
#: Writes the value of a key of the overflow; None deletes the key.
WriteOverflow = Callable[[bytes, bytes | None], None]


# RecentPurchases are encoded by hand, so that a purchase can be appended without decoding them:
# an array of format, floor and purchases; the array of purchases always has a length of two bytes.
_HEADER = bytes((0x93, RECENT_FORMAT))
_NIL, _INT64, _ARRAY16 = b"\xc0", b"\xd3", b"\xdc"
_WITHOUT_FLOOR = _HEADER + _NIL + _ARRAY16
_FIRST_PURCHASE = _WITHOUT_FLOOR + b"\x00\x01"
#: Header -> the position of the length of the array of purchases.
_LENGTH_POSITIONS = {_HEADER + _NIL: 4, _HEADER + _INT64: 12}
_PURCHASE_ARRAY = b"\x99"
# Other formats are readable, but nothing is appended to them. The format before this one has no
# offsets: a value never mixes the two, so that an older version rejects all of a newer value.
_OTHER_FORMATS = {bytes((0x94, ERASED_FORMAT)): ERASED_FORMAT, bytes((0x93, RECENT_FORMAT - 1)): RECENT_FORMAT - 1}

# The floor if no purchase of the overflow is live.
_MIN_FLOOR = -(2**63)

_decode_recent = msgspec.msgpack.Decoder(RecentPurchases).decode
_decode_overflow = msgspec.msgpack.Decoder(_OverflowEntry).decode


# -- applying events


def apply_event(
    user: bytes,
    value: bytes | None,
    event: OrderEvent,
    offset: int,
    read_overflow: ReadOverflow,
    write_overflow: WriteOverflow,
    max_entries: int,
    trim_to: int,
    price_changes: list[PriceChange],
    purchase_changes: list[PurchaseChange] | None = None,
) -> bytes:
    """Apply an event of `user` to the user's newest purchases, and return their new value.

    `value` are the newest purchases before, `offset` is the position of the event in `orders`. If
    there are more than `max_entries` purchases afterwards, only the newest `trim_to` stay in the
    value; the others are moved to the overflow.

    The effect of the event is appended to `price_changes` and, unless it is None, to
    `purchase_changes`; a new time, price or category is a removal and an addition. An event that
    changes nothing returns `value` itself. Raises UnknownFormat.
    """
    # Fast path for the event of a new purchase, the most common one: nothing is decoded.
    data = event.data
    live = event.type != REMOVED
    ordered_at = microseconds(data.ordered_at)
    encoded = encode(
        (data.order_id, data.product_name, data.version, live, ordered_at, data.price,
         data.payment_method, data.category, offset)
    )  # fmt: skip
    if value is None:
        price_changes.append((data.product_name, None, data.price if live else None))
        if live and purchase_changes is not None:
            purchase_changes.append((data.user_id, data.product_name, data.category, ordered_at, data.price, 1))
        return _FIRST_PURCHASE + encoded
    identity = encode((data.order_id, data.product_name))[1:]
    length_at = _LENGTH_POSITIONS.get(value[:3])
    if length_at is not None and _PURCHASE_ARRAY + identity not in value:
        count = int.from_bytes(value[length_at : length_at + 2], "big") + 1
        if count <= max_entries and (length_at == 4 or read_overflow(user + b"\x00\x92" + identity) is None):
            price_changes.append((data.product_name, None, data.price if live else None))
            if live and purchase_changes is not None:
                purchase_changes.append((data.user_id, data.product_name, data.category, ordered_at, data.price, 1))
            return b"".join((value[:length_at], count.to_bytes(2, "big"), value[length_at + 2 :], encoded))
    return _apply_decoded(
        user, value, event, offset, read_overflow, write_overflow, max_entries, trim_to, price_changes, purchase_changes
    )


def _apply_decoded(
    user: bytes,
    value: bytes,
    event: OrderEvent,
    offset: int,
    read_overflow: ReadOverflow,
    write_overflow: WriteOverflow,
    max_entries: int,
    trim_to: int,
    price_changes: list[PriceChange],
    purchase_changes: list[PurchaseChange] | None,
) -> bytes:
    recent = decode_recent(value)
    purchases, floor = {purchase.identity: purchase for purchase in recent.purchases}, recent.floor
    new = purchase_from_event(event, offset)
    if new.version <= recent.erased_version:
        return value
    old = purchases.get(new.identity)
    key = None
    if old is None and floor is not None:
        key = overflow_key(user, *new.identity)
        old = decode_overflow(read_overflow(key))
    if old is not None and not _supersedes(new, old, event.type):
        return value
    price_changes.append((new.product_name, _live_price(old), _live_price(new)))
    if purchase_changes is not None:
        before, after = _live_fields(old), _live_fields(new)
        if before != after:
            purchase_changes += [
                (event.data.user_id, *fields, sign) for fields, sign in ((before, -1), (after, 1)) if fields
            ]
    if key is not None and old is not None and floor is not None:
        if not new.live or new.ordered_at <= floor:
            write_overflow(key, encode(_OverflowEntry(OVERFLOW_FORMAT, new)))
            return value
        write_overflow(key, None)
    purchases[new.identity] = new
    ranked = sorted(purchases.values(), key=lambda purchase: (purchase.live, purchase.sort_key), reverse=True)
    if len(ranked) > max_entries:
        for purchase in ranked[trim_to:]:
            write_overflow(overflow_key(user, *purchase.identity), encode(_OverflowEntry(OVERFLOW_FORMAT, purchase)))
            floor = max(_MIN_FLOOR if floor is None else floor, purchase.ordered_at if purchase.live else _MIN_FLOOR)
        ranked = ranked[:trim_to]
    return _encode_recent(floor, ranked, recent.erased_version)


def erase(
    user: bytes,
    value: bytes | None,
    version: int,
    overflow: Iterable[tuple[bytes, bytes]],
    write_overflow: WriteOverflow,
    price_changes: list[PriceChange],
    purchase_changes: list[PurchaseChange] | None = None,
) -> bytes:
    """Erase a user's purchases up to `version` forever, and return the new value.

    `overflow` are the keys and values of the user's overflow; the other parameters are those of
    `apply_event`. Raises UnknownFormat.
    """
    recent = decode_recent(value)
    if value is not None and version <= recent.erased_version:
        return value
    entries = [(key, decode_overflow(entry)) for key, entry in overflow]
    remaining = [purchase for purchase in recent.purchases if purchase.version > version]
    floor = recent.floor if any(purchase.version > version for _, purchase in entries) else None
    for key, purchase in (*((None, purchase) for purchase in recent.purchases), *entries):
        if purchase.version > version:
            continue
        if key is not None:
            write_overflow(key, None)
        fields = _live_fields(purchase)
        if fields is not None:
            price_changes.append((purchase.product_name, purchase.price, None))
            if purchase_changes is not None:
                purchase_changes.append((user.decode(), *fields, -1))
    return _encode_recent(floor, remaining, version)


def purchase_from_event(event: OrderEvent, offset: int = -1) -> Purchase:
    """Return the purchase as of `event`, whose position in `orders` is `offset`."""
    data = event.data
    return Purchase(
        data.order_id, data.product_name, data.version, event.type != REMOVED, microseconds(data.ordered_at),
        data.price, data.payment_method, data.category, offset,
    )  # fmt: skip


def overflow_key(user: bytes, order_id: str | int, product_name: str) -> bytes:
    """Return the key of a purchase in the overflow; user ids contain no zero byte."""
    return user + b"\x00" + encode((order_id, product_name))


def _encode_recent(floor: int | None, purchases: list[Purchase], erased_version: int = -1) -> bytes:
    if erased_version >= 0:
        return encode((ERASED_FORMAT, floor, purchases, erased_version))
    floor_bytes = _NIL if floor is None else _INT64 + floor.to_bytes(8, "big", signed=True)
    return b"".join((_HEADER, floor_bytes, _ARRAY16, len(purchases).to_bytes(2, "big"), *map(encode, purchases)))


def _live_price(purchase: Purchase | None) -> str | None:
    return purchase.price if purchase is not None and purchase.live else None


def _live_fields(purchase: Purchase | None) -> tuple[str, str | None, int, str] | None:
    """Return the fields of a PurchaseChange; None if there is no live purchase."""
    if purchase is None or not purchase.live:
        return None
    return (purchase.product_name, purchase.category, purchase.ordered_at, purchase.price)


def _supersedes(new: Purchase, old: Purchase, event_type: str) -> bool:
    """Compare versions; the contents decide between equal versions.

    A repair corrects the content and keeps the version: it supersedes a purchase of its own
    version.
    """
    if new.version != old.version:
        return new.version > old.version
    return event_type == REPAIRED or _content_rank(new) > _content_rank(old)


def _content_rank(purchase: Purchase) -> tuple[bool, tuple[tuple[bool, str], ...]]:
    # A removal wins against a purchase of its version. The offset is not compared: a repeated event
    # does not change the offset of its first occurrence.
    fields = msgspec.structs.astuple(purchase)[:-1]
    return (not purchase.live, tuple((value is not None, str(value)) for value in fields))


# -- reading


def newest_purchases(
    value: bytes | None,
    read_all_overflow: Callable[[], Iterable[bytes]],
    limit: int | None = None,
    predicate: Callable[[Purchase], bool] | None = None,
    since: int | None = None,
) -> list[Purchase]:
    """Return the live purchases of a user that `predicate` accepts, newest first, at most `limit`.

    `read_all_overflow` returns the values of the overflow; it is not called if no purchase of the
    overflow can be in the result. `since` (microseconds) is an optional hint: `predicate` accepts
    no purchase ordered before it. Raises UnknownFormat.
    """
    recent = decode_recent(value)
    floor = recent.floor
    purchases = [
        purchase for purchase in recent.purchases if purchase.live and (floor is None or purchase.ordered_at > floor)
    ]
    if predicate is not None:
        purchases = [purchase for purchase in purchases if predicate(purchase)]
    is_complete = (limit is not None and len(purchases) >= limit) or (
        since is not None and floor is not None and since > floor
    )
    if floor is not None and not is_complete:
        purchases = [
            purchase
            for purchase in (*recent.purchases, *map(decode_overflow, read_all_overflow()))
            if purchase.live and (predicate is None or predicate(purchase))
        ]
    return sorted(purchases, key=purchase_sort_key, reverse=True)[:limit]


def product_names(purchases: Iterable[Purchase]) -> list[str]:
    """Return the distinct products of purchases, in the order of their first appearance."""
    return list(dict.fromkeys(purchase.product_name for purchase in purchases))


def all_purchases(value: bytes | None, overflow: Iterable[bytes]) -> list[Purchase]:
    """Return all purchases of a user, with removed ones, in no order. Raises UnknownFormat."""
    return [*decode_recent(value).purchases, *map(decode_overflow, overflow)]


def entry_purchases(key: bytes, value: bytes) -> Iterable[Purchase]:
    """Return the purchases in one entry of by_user, with removed ones. Raises UnknownFormat."""
    return [decode_overflow(value)] if b"\x00" in key else decode_recent(value).purchases


def has_order(value: bytes | None, read_all_overflow: Callable[[], Iterable[bytes]], order_id: str) -> bool:
    """Return True if a purchase of the order was ever applied. Raises UnknownFormat."""
    if any(str(purchase.order_id) == order_id for purchase in decode_recent(value).purchases):
        return True
    return any(str(decode_overflow(entry).order_id) == order_id for entry in read_all_overflow())


def erased_version(value: bytes | None) -> int:
    """Return the version up to which all purchases are erased, or -1. Raises UnknownFormat."""
    return decode_recent(value).erased_version


def decode_recent(value: bytes | None) -> RecentPurchases:
    """Decode the newest purchases of a user; None: no purchases. Raises UnknownFormat."""
    if value is None:
        return RecentPurchases(RECENT_FORMAT)
    format_number = _OTHER_FORMATS.get(value[:2], RECENT_FORMAT)
    return decode_checked(_decode_recent, value, format_number, "by_user")


@overload
def decode_overflow(value: bytes) -> Purchase: ...
@overload
def decode_overflow(value: None) -> None: ...
def decode_overflow(value: bytes | None) -> Purchase | None:
    """Decode a value of the overflow; None: there is none. Raises UnknownFormat."""
    return None if value is None else decode_checked(_decode_overflow, value, OVERFLOW_FORMAT, "by_user").purchase
