"""Pure functions (state, events) -> state: what the tables remember of the stream.

Every fold gives the same state for the same set of events, however they are ordered, repeated or split: of each
purchase the newest version counts, and what is forgotten is decided by the purchases themselves, not by the order
in which they came (docs/decisions/002-recent-purchases-as-registers.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from decimal import Context, Decimal

import msgspec

from app.errors import UnknownFormat
from app.models import REMOVED, REPAIRED, UNDECODABLE, Event

RECENT_FORMAT = 1
SALE_FORMAT = 1

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
# Prices have up to 28 digits, Python's default precision; a sum of 10^32 of them stays exact in 60.
_EXACT = Context(prec=60)


class Register(msgspec.Struct, frozen=True, array_like=True):
    """The newest known version of one purchase; a removed one stays as a tombstone with `live` false.

    `ordered_at` is in microseconds since 1970 UTC, `price` a decimal string. `highest` is the latest `ordered_at` that
    any version of the purchase had: it decides what is forgotten, because it does not depend on the versions' order.
    """

    highest: int
    ordered_at: int
    order_id: str | int
    product_name: str
    version: int
    live: bool
    price: str
    payment_method: str | None
    category: str | None

    @property
    def identity(self) -> tuple[str | int, str]:
        return (self.order_id, self.product_name)

    @property
    def place(self) -> tuple:
        """Where the purchase stands among a user's: ORDER BY ordered_at, order_id, product_name (by bytes)."""
        return place(self.ordered_at, self.order_id, self.product_name)

    @property
    def rank(self) -> tuple:
        """The highest place the purchase ever had."""
        return place(self.highest, self.order_id, self.product_name)


class Recent(msgspec.Struct, frozen=True, array_like=True):
    """A user's newest purchases by rank, and `floor`: the highest rank that was forgotten.

    Whatever stands at or below the floor may be missing here; what stands above it is all there.
    """

    format: int
    registers: tuple[Register, ...] = ()
    floor: tuple[int, str | int, str] | None = None

    def shown(self, limit: int) -> tuple[list[Register], bool]:
        """The newest live purchases, at most `limit`, and whether MySQL would show no others in their stead."""
        floor = place(*self.floor) if self.floor else None
        live = [r for r in self.registers if r.live and (floor is None or r.place > floor)]
        newest = sorted(live, key=lambda r: r.place, reverse=True)[:limit]
        return newest, floor is None or len(newest) == limit


NOTHING = Recent(RECENT_FORMAT)


class Sale(msgspec.Struct, frozen=True, array_like=True):
    """What one purchase adds to the totals of its product."""

    format: int
    version: int
    live: bool
    price: str


class Totals(msgspec.Struct, frozen=True):
    """How often a product was bought, and for how much in all."""

    purchases: int = 0
    revenue: Decimal = Decimal(0)


def place(ordered_at: int, order_id: str | int, product_name: str) -> tuple:
    """A sort key that puts integer order ids in numeric order and before the others."""
    if isinstance(order_id, int):
        return (ordered_at, 0, order_id, "", product_name)
    return (ordered_at, 1, 0, order_id, product_name)


def microseconds(moment: datetime) -> int:
    """A moment as whole microseconds since 1970 UTC, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def money(amount: Decimal) -> str:
    """An amount as text with two decimals, or as many more as it needs."""
    whole, _, decimals = format(amount, "f").partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def rfc3339(microseconds: int) -> str:
    """Microseconds since 1970 UTC as RFC 3339 text with Z, without a fraction where it is zero."""
    return (_EPOCH + microseconds * _MICROSECOND).replace(tzinfo=None).isoformat() + "Z"


def register(event: Event) -> Register:
    """What `event` says of its purchase."""
    data = event.data
    ordered_at = microseconds(data.ordered_at)
    return Register(
        ordered_at, ordered_at, data.order_id, data.product_name, data.version,
        event.type != REMOVED, data.price, data.payment_method, data.category,
    )  # fmt: skip


def remember(state: Recent, events: Iterable[Event], keep: int) -> Recent:
    """Add `events` of one user to the user's purchases and keep the newest `keep` registers."""
    known = {r.identity: r for r in state.registers}
    floor = state.floor
    for event in events:
        new = register(event)
        old = known.get(new.identity)
        if old is not None:
            highest = max(old.highest, new.highest)
            new = msgspec.structs.replace(new if _supersedes(new, old, event.type) else old, highest=highest)
        known[new.identity] = new
    ranked = sorted(known.values(), key=lambda r: r.rank, reverse=True)
    for forgotten in ranked[keep:]:
        if floor is None or forgotten.rank > place(*floor):
            floor = (forgotten.highest, forgotten.order_id, forgotten.product_name)
    kept = (r for r in ranked[:keep] if floor is None or r.rank > place(*floor))
    return Recent(RECENT_FORMAT, tuple(kept), floor)


def sale(known: Sale | None, event: Event) -> Sale:
    """The newest version of a purchase, from what is known of it and one more event."""
    new = Sale(SALE_FORMAT, event.data.version, event.type != REMOVED, event.data.price)
    return new if known is None or _supersedes(new, known, event.type) else known


def retotal(totals: Totals, before: Sale | None, after: Sale) -> Totals:
    """The totals of a product once `before` has become `after`."""
    purchases, revenue = totals.purchases, totals.revenue
    if before is not None and before.live:
        purchases, revenue = purchases - 1, _EXACT.subtract(revenue, Decimal(before.price))
    if after.live:
        purchases, revenue = purchases + 1, _EXACT.add(revenue, Decimal(after.price))
    return Totals(purchases, revenue)


def _supersedes(new: Register | Sale, old: Register | Sale, event_type: str) -> bool:
    """Whether `new` replaces `old`: a newer version does; of equal versions one is chosen by content.

    A repair sets the content and leaves the version alone, so it replaces its equal.
    """
    if new.version != old.version:
        return new.version > old.version
    return event_type == REPAIRED or _content(new) > _content(old)


def _content(known: Register | Sale) -> tuple:
    # A removal wins over a purchase of the same version; `highest` is no content.
    fields = msgspec.structs.astuple(known)[1:]
    return (not known.live, tuple((value is not None, str(value)) for value in fields))


_recent_decoder = msgspec.msgpack.Decoder(Recent)
_sale_decoder = msgspec.msgpack.Decoder(Sale)
encode = msgspec.msgpack.encode


def decode_recent(value: bytes | None) -> Recent:
    """A user's state from the table; None is a user without purchases. Raises UnknownFormat."""
    return NOTHING if value is None else _decode(_recent_decoder, value, RECENT_FORMAT, "by_user")


def decode_sale(value: bytes | None) -> Sale | None:
    """A purchase from the table by_product. Raises UnknownFormat."""
    return None if value is None else _decode(_sale_decoder, value, SALE_FORMAT, "by_product")


def _decode(decoder: msgspec.msgpack.Decoder, value: bytes, known: int, table: str):
    try:
        state = decoder.decode(value)
    except UNDECODABLE as exc:
        raise UnknownFormat(
            f"a value of the table {table} cannot be read ({exc}); it was written by another version of Lately: "
            "run that version, or set LATELY_ID to a new name to build the tables anew"
        ) from None
    if state.format != known:
        raise UnknownFormat(
            f"a value of the table {table} has format {state.format}, this version knows {known}: "
            "run the version that wrote it, or set LATELY_ID to a new name to build the tables anew"
        )
    return state
