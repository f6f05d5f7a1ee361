"""Pure functions (state, events) -> state: what the tables remember of the stream.

Every fold gives the same answer for the same set of events, however they are ordered, repeated or split: of each
purchase the newest version counts, and none is ever forgotten
(docs/decisions/002-every-purchase-as-a-register.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter

import msgspec

from domain.codec import decode_checked, encode
from domain.events import REMOVED, REPAIRED, Event
from domain.values import microseconds

RECENT_FORMAT = 3
#: The same of a user who was erased once.
ERASED_FORMAT = 4
OVERFLOW_FORMAT = 1


class Purchase(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The newest known version of one purchase; a removed one stays as a tombstone with `live` false.

    `ordered_at` is in microseconds since 1970 UTC, `price` a decimal string. `offset` is where the event that said so
    lies in the user's partition of `orders`, -1 where that was not written down.
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
        """What names the purchase among a user's."""
        return (self.order_id, self.product_name)

    @property
    def sort_key(self) -> tuple:
        """Where it stands among a user's: ORDER BY ordered_at, order_id, product_name (by bytes).

        Integer order ids sort in numeric order and before the others.
        """
        if isinstance(self.order_id, int):
            return (self.ordered_at, 0, self.order_id, "", self.product_name)
        return (self.ordered_at, 1, 0, self.order_id, self.product_name)


#: The key that sorts purchases.
purchase_sort_key = attrgetter("sort_key")


class RecentPurchases(msgspec.Struct, frozen=True, array_like=True):
    """A user's newest purchases, in no order; the others are kept one by one beside them.

    No purchase kept beside them is both live and ordered after `floor`, in microseconds; None: there are no others.
    What is not newer than the version `erased` is forgotten for ever; -1: nothing is.
    """

    format: int
    floor: int | None = None
    purchases: tuple[Purchase, ...] = ()
    erased_version: int = -1


class _OverflowEntry(msgspec.Struct, frozen=True, array_like=True):
    format: int
    purchase: Purchase


#: What one event changed about a purchase: product name, price before, price after; None where it is not bought.
PriceChange = tuple[str, str | None, str | None]
#: A purchase that is bought from now on (+1) or not any more (-1): user id, product name, category, ordered at, price,
#: sign.
PurchaseChange = tuple[str, str, str | None, int, str, int]


# -- by user: the bytes of a Recent can be appended to without decoding them

# An array of format, floor and registers; the array of registers has two bytes for their number, however few.
_HEAD = bytes((0x93, RECENT_FORMAT))
_NIL, _INT64, _ARRAY16 = b"\xc0", b"\xd3", b"\xdc"
_WITHOUT_FLOOR = _HEAD + _NIL + _ARRAY16
_FIRST = _WITHOUT_FLOOR + b"\x00\x01"
_COUNT_AT = {_HEAD + _NIL: 4, _HEAD + _INT64: 12}
_REGISTER = b"\x99"
# Nothing is appended to values that begin otherwise: those of an erased user, and those of earlier versions, without
# offsets, so that no such version reads half of what this one wrote.
_FORMATS = {bytes((0x94, ERASED_FORMAT)): ERASED_FORMAT, bytes((0x93, RECENT_FORMAT - 1)): RECENT_FORMAT - 1}

# The floor of a user all of whose other purchases are removed.
_BELOW_ALL = -(2**63)

_decode_recent = msgspec.msgpack.Decoder(RecentPurchases).decode
_decode_earlier = msgspec.msgpack.Decoder(_OverflowEntry).decode


def overflow_key(user: bytes, order_id: str | int, product_name: str) -> bytes:
    """Where a purchase that is not among the newest is kept. User ids hold no control characters."""
    return user + b"\x00" + encode((order_id, product_name))


def apply_event(
    user: bytes,
    value: bytes | None,
    event: Event,
    offset: int,
    read_overflow: Callable[[bytes], bytes | None],
    write_overflow: Callable[[bytes, bytes | None], None],
    max_entries: int,
    trim_to: int,
    price_changes: list[PriceChange],
    purchase_changes: list[PurchaseChange] | None = None,
) -> bytes:
    """Add one event of `user`, which lies at `offset`, to `value`, and return what these newest purchases become.

    `earlier` reads what is kept beside them and `forget` writes it; more than `most` registers are cut to the newest
    `least`. What changed about the purchase is appended to `differences`, and to `changes` where they are given: one
    with another time, price or category is taken back and bought again. Raises UnknownFormat.
    """
    # Most events are of a purchase never seen before; those need no decoding.
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
        return _FIRST + encoded
    identity = encode((data.order_id, data.product_name))[1:]
    count_at = _COUNT_AT.get(value[:3])
    if count_at is not None and _REGISTER + identity not in value:
        count = int.from_bytes(value[count_at : count_at + 2], "big") + 1
        if count <= max_entries and (count_at == 4 or read_overflow(user + b"\x00\x92" + identity) is None):
            price_changes.append((data.product_name, None, data.price if live else None))
            if live and purchase_changes is not None:
                purchase_changes.append((data.user_id, data.product_name, data.category, ordered_at, data.price, 1))
            return b"".join((value[:count_at], count.to_bytes(2, "big"), value[count_at + 2 :], encoded))
    return _remember(
        user, value, event, offset, read_overflow, write_overflow, max_entries, trim_to, price_changes, purchase_changes
    )


def _remember(user, value, event, offset, earlier, forget, most, least, differences, changes) -> bytes:
    recent = decode_recent(value)
    registers, floor = {one.identity: one for one in recent.purchases}, recent.floor
    new = purchase_from_event(event, offset)
    if new.version <= recent.erased_version:
        return value
    old = registers.get(new.identity)
    aside = None
    if old is None and floor is not None:
        aside = overflow_key(user, *new.identity)
        old = decode_overflow(earlier(aside))
    if old is not None and not _supersedes(new, old, event.type):
        return value
    differences.append((new.product_name, _price(old), _price(new)))
    if changes is not None:
        before, after = _counted(old), _counted(new)
        if before != after:
            changes += [(event.data.user_id, *one, sign) for one, sign in ((before, -1), (after, 1)) if one]
    if aside is not None and old is not None:
        if not new.live or new.ordered_at <= floor:
            forget(aside, encode(_OverflowEntry(OVERFLOW_FORMAT, new)))
            return value
        forget(aside, None)
    registers[new.identity] = new
    ranked = sorted(registers.values(), key=lambda one: (one.live, one.sort_key), reverse=True)
    if len(ranked) > most:
        for one in ranked[least:]:
            forget(overflow_key(user, *one.identity), encode(_OverflowEntry(OVERFLOW_FORMAT, one)))
            floor = max(_BELOW_ALL if floor is None else floor, one.ordered_at if one.live else _BELOW_ALL)
        ranked = ranked[:least]
    return _encode_recent(floor, ranked, recent.erased_version)


def erase(
    user: bytes,
    value: bytes | None,
    version: int,
    overflow: Iterable[tuple[bytes, bytes]],
    write_overflow: Callable[[bytes, bytes | None], None],
    price_changes: list[PriceChange],
    purchase_changes: list[PurchaseChange] | None = None,
) -> bytes:
    """Forget all of `user` that is not newer than `version`, for ever; what `value` becomes.

    `others` are the keys and values kept beside it, the rest is as in `remember`. Raises UnknownFormat.
    """
    recent = decode_recent(value)
    if value is not None and version <= recent.erased_version:
        return value
    beside = [(key, decode_overflow(other)) for key, other in overflow]
    remaining = [one for one in recent.purchases if one.version > version]
    floor = recent.floor if any(one.version > version for _, one in beside) else None
    for key, one in (*((None, one) for one in recent.purchases), *beside):
        if one.version > version:
            continue
        if key is not None:
            write_overflow(key, None)
        if one.live:
            price_changes.append((one.product_name, one.price, None))
            if purchase_changes is not None:
                purchase_changes.append((user.decode(), *_counted(one), -1))
    return _encode_recent(floor, remaining, version)


def _encode_recent(floor: int | None, registers: list[Purchase], erased: int = -1) -> bytes:
    if erased >= 0:
        return encode((ERASED_FORMAT, floor, registers, erased))
    mark = _NIL if floor is None else _INT64 + floor.to_bytes(8, "big", signed=True)
    return b"".join((_HEAD, mark, _ARRAY16, len(registers).to_bytes(2, "big"), *map(encode, registers)))


def newest_purchases(
    value: bytes | None,
    read_all_overflow: Callable[[], Iterable[bytes]],
    limit: int | None = None,
    predicate: Callable[[Purchase], bool] | None = None,
    since: int | None = None,
) -> list[Purchase]:
    """The newest live purchases, of all or of those that are `wanted`, newest first: `limit` of them, or all.

    `others` reads the values kept beside `value`; it is not called where nothing in them can be among the answer.
    None that is wanted was ordered before `since` (microseconds). Raises UnknownFormat.
    """
    recent = decode_recent(value)
    floor = recent.floor
    found = [one for one in recent.purchases if one.live and (floor is None or one.ordered_at > floor)]
    if predicate is not None:
        found = [one for one in found if predicate(one)]
    enough = (limit is not None and len(found) >= limit) or (since is not None and floor is not None and since > floor)
    if floor is not None and not enough:
        everything = [*recent.purchases, *map(decode_overflow, read_all_overflow())]
        found = [one for one in everything if one.live and (predicate is None or predicate(one))]
    return sorted(found, key=purchase_sort_key, reverse=True)[:limit]


def all_purchases(value: bytes | None, overflow: Iterable[bytes]) -> list[Purchase]:
    """All that is known of a user's purchases, removed ones too, in no order. Raises UnknownFormat."""
    return [*decode_recent(value).purchases, *map(decode_overflow, overflow)]


def entry_purchases(key: bytes, value: bytes) -> Iterable[Purchase]:
    """All that one key of the table by_user knows of, removed ones too. Raises UnknownFormat."""
    return [decode_overflow(value)] if b"\x00" in key else decode_recent(value).purchases


def has_order(value: bytes | None, read_all_overflow: Callable[[], Iterable[bytes]], order_id: str) -> bool:
    """Whether a purchase of this order has arrived, be it removed since. Raises UnknownFormat."""
    if any(str(one.order_id) == order_id for one in decode_recent(value).purchases):
        return True
    return any(str(decode_overflow(other).order_id) == order_id for other in read_all_overflow())


def purchase_from_event(event: Event, offset: int = -1) -> Purchase:
    """What `event`, which lies at `offset`, says of its purchase."""
    data = event.data
    return Purchase(
        data.order_id, data.product_name, data.version, event.type != REMOVED, microseconds(data.ordered_at),
        data.price, data.payment_method, data.category, offset,
    )  # fmt: skip


def _price(one: Purchase | None) -> str | None:
    return one.price if one is not None and one.live else None


def _counted(one: Purchase | None) -> tuple | None:
    if one is None or not one.live:
        return None
    return (one.product_name, one.category, one.ordered_at, one.price)


def _supersedes(new: Purchase, old: Purchase, event_type: str) -> bool:
    """Whether `new` replaces `old`: a newer version does; of equal versions one is chosen by content.

    A repair sets the content and leaves the version alone, so it replaces its equal.
    """
    if new.version != old.version:
        return new.version > old.version
    return event_type == REPAIRED or _content(new) > _content(old)


def _content(known: Purchase) -> tuple:
    # A removal wins over a purchase of the same version. Where it was said is no content: the first place stays.
    fields = msgspec.structs.astuple(known)[:-1]
    return (not known.live, tuple((value is not None, str(value)) for value in fields))


def decode_recent(value: bytes | None) -> RecentPurchases:
    """A user's newest purchases from the table; None is a user without any. Raises UnknownFormat."""
    if value is None:
        return RecentPurchases(RECENT_FORMAT)
    known = _FORMATS.get(value[:2], RECENT_FORMAT)
    return decode_checked(_decode_recent, value, known, "by_user")


def erased_version(value: bytes | None) -> int:
    """Up to which version all of the user is forgotten; -1: nothing is. Raises UnknownFormat."""
    return decode_recent(value).erased_version


def decode_overflow(value: bytes | None) -> Purchase | None:
    """A purchase that is kept beside the newest ones. Raises UnknownFormat."""
    return None if value is None else decode_checked(_decode_earlier, value, OVERFLOW_FORMAT, "by_user").purchase
