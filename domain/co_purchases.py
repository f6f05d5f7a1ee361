"""Pure functions behind "also bought": which products a user counts for, what that changes, and how alike two are.

A user counts for the products of the purchases made last, at most DISTINCT_CAP of them, so that nobody weighs more
than that, however much is bought. Every change of it is told as deltas, which may be added in any order
(docs/decisions/007-co-purchases-by-deltas.md).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from domain.codec import decode_checked, encode
from domain.product_history import MAX_HOURS_AHEAD, RETENTION_HOURS, PurchaseCount, retain_counts
from domain.purchases import PurchaseChange
from domain.values import DAY_US, HOUR_US

#: The products that a user counts for: of more, those bought last.
DISTINCT_CAP = 64
#: The products kept in the same value beyond that, to fill up after removals.
SPARE = 64

#: Changes in one record: a step of the agent that reads them takes some milliseconds.
CHANGES_PER_RECORD = 250
#: The newest days of which it is kept how many purchases named a category; those of older days are one number.
CATEGORY_DAYS = 7
#: The categories of a product that are kept, those of the newest purchases.
MAX_CATEGORIES = 16
NEIGHBOURS_PER_RECORD = PURCHASES_PER_RECORD = 1_000
#: Kafka takes records up to 1 MiB.
RECORD_BYTES = 800_000

FORMAT = 1

#: How often a user has a product, and when it was bought last, in microseconds.
BasketLine = tuple[int, int]


class Basket(msgspec.Struct, frozen=True, array_like=True):
    """The products a user bought last; no other product of the user was bought after `floor`: time and name.

    None: there are no others.
    """

    format: int
    floor: tuple[int, str] | None = None
    lines: dict[str, BasketLine] = {}


class BasketOverflow(NamedTuple):
    """The lines of a user's other products, kept one by one: how to read, to write and to list them."""

    read: Callable[[str], bytes | None]
    write: Callable[[str, bytes | None], None]
    scan: Callable[[], Iterable[tuple[str, bytes]]]


class ProductDelta(msgspec.Struct, array_like=True):
    """What changed about a product: users who have it by their other products, users in all, and by the hour.

    `categories` counts the purchases that name each of them, by the day they are from; `category` is what was told
    before these were counted. `purchases` are those made or taken back, see domain.product_history.
    """

    format: int = FORMAT
    neighbours: dict[str, int] = msgspec.field(default_factory=Counter)
    buyers: int = 0
    category: tuple[int, str] | None = None
    hours: dict[int, int] = msgspec.field(default_factory=Counter)
    purchases: list[PurchaseCount] = msgspec.field(default_factory=list)
    categories: dict[str, dict[int, int]] = msgspec.field(default_factory=lambda: defaultdict(Counter))


class CategoryCounts(msgspec.Struct, frozen=True, array_like=True):
    """How many purchases of a product name a category: by day, and for all days up to `floor` together."""

    days: dict[int, int] = {}
    floor: int | None = None
    older: int = 0

    def add_days(self, counts: dict[int, int], max_days: int = CATEGORY_DAYS) -> CategoryCounts:
        """The same with what was told of some days."""
        days, floor, older = self.days.copy(), self.floor, self.older
        for day, count in counts.items():
            if floor is not None and day <= floor:
                older += count
            else:
                days[day] = days.get(day, 0) + count
        left = {day: days[day] for day in sorted(days) if days[day]}
        while len(left) > max_days:
            floor = next(iter(left))
            older += left.pop(floor)
        return CategoryCounts(left, floor, older)

    def newest_day(self, last_day: int) -> tuple[int, int] | None:
        """The newest day that names it, and how often; what is dated after the day `last` comes after all others."""
        ahead = None
        for day, count in reversed(self.days.items()):
            if count > 0 and day <= last_day:
                return day, count
            if count > 0:
                ahead = -day, count
        if self.older > 0:
            return (self.floor if self.floor <= last_day else -self.floor), self.older
        return ahead


class ProductSales(msgspec.Struct, frozen=True, array_like=True):
    """A product as the table `similar` knows it, without its neighbours: see Delta.

    `category` is the one of its newest purchases, after the time these are from.
    """

    format: int = FORMAT
    buyers: int = 0
    category: tuple[int, str] | None = None
    hours: dict[int, int] = {}
    categories: dict[str, CategoryCounts] = {}

    def recent_buyers(self, windows: Iterable[int], now_hour: int) -> list[int]:
        """How many users bought it last in the hours of each window; what is dated more than a day ahead counts not."""
        ages = [(now_hour - at, count) for at, count in self.hours.items() if at <= now_hour + MAX_HOURS_AHEAD]
        return [sum(count for age, count in ages if age <= hours) for hours in windows]


class SalesSummary(msgspec.Struct, frozen=True, array_like=True):
    """The beginning of Sales, of which many are read for one answer: in how many baskets it is, and its category."""

    format: int = FORMAT
    buyers: int = 0
    category: tuple[int, str] | None = None


_decode_changes = msgspec.msgpack.Decoder(tuple[int, list[PurchaseChange]]).decode
_decode_basket = msgspec.msgpack.Decoder(Basket).decode
_decode_line = msgspec.msgpack.Decoder(tuple[int, int, int]).decode
_decode_delta = msgspec.msgpack.Decoder(ProductDelta).decode
_decode_sales = msgspec.msgpack.Decoder(ProductSales).decode
_decode_brief = msgspec.msgpack.Decoder(SalesSummary).decode
_decode_count = msgspec.msgpack.Decoder(int).decode


# -- purchase-changes


def encode_changes(changes: list[PurchaseChange]) -> Iterator[bytes]:
    """The records of the topic purchase-changes: as few as the limits allow."""
    for first in range(0, len(changes), CHANGES_PER_RECORD):
        yield from _within_limit(changes[first : first + CHANGES_PER_RECORD])


def _within_limit(changes: list[PurchaseChange]) -> Iterator[bytes]:
    record = encode((FORMAT, changes))
    if len(record) <= RECORD_BYTES or len(changes) == 1:
        yield record
    else:
        middle = len(changes) // 2
        yield from _within_limit(changes[:middle])
        yield from _within_limit(changes[middle:])


def decode_changes(value: bytes) -> list[PurchaseChange]:
    """One of them, read. Raises UnknownFormat."""
    return decode_checked(_decode_changes, value, FORMAT, "purchase-changes")[1]


# -- baskets


def apply_changes(
    value: bytes | None,
    changes: Iterable[PurchaseChange],
    overflow: BasketOverflow,
    cap: int = DISTINCT_CAP,
    spare: int = SPARE,
) -> tuple[bytes | None, dict[str, int], dict[str, int]]:
    """Add changes of one user, in their order, to the user's basket.

    Returns what `value` becomes, and the products the user counts for before and after, each with the hour of its last
    purchase. What is taken back without having been bought (before Lately counted) changes nothing. A removal leaves
    the time of the last purchase as it is while there are others of the product. Raises UnknownFormat.
    """
    basket = Basket(FORMAT) if value is None else decode_checked(_decode_basket, value, FORMAT, "baskets")
    lines, floor = dict(basket.lines), basket.floor
    before = _counted(lines, cap)
    for _user, product, _category, ordered_at, _price, sign in changes:
        line, was_beside = lines.get(product), False
        if line is None and floor is not None:
            line = _read_line(overflow.read(product))
            was_beside = line is not None
        if line is None:
            if sign < 0:
                continue
            line = (0, ordered_at)
        count, last = line[0] + sign, max(line[1], ordered_at) if sign > 0 else line[1]
        if floor is not None and (last, product) <= floor:
            overflow.write(product, encode((FORMAT, count, last)) if count else None)
            continue
        if was_beside:
            overflow.write(product, None)
        if count:
            lines[product] = (count, last)
        else:
            lines.pop(product, None)
        if len(lines) > cap + spare:
            oldest = min(lines, key=lambda name: _place(name, lines[name]))
            floor = _place(oldest, lines[oldest])
            overflow.write(oldest, encode((FORMAT, *lines.pop(oldest))))
        elif len(lines) < cap and floor is not None:
            floor = _fill_up(lines, overflow, cap + spare)
    empty = not lines and floor is None
    return None if empty else encode(Basket(FORMAT, floor, lines)), before, _counted(lines, cap)


def _fill_up(lines: dict[str, BasketLine], beside: BasketOverflow, most: int) -> tuple[int, str] | None:
    """Take the newest products kept beside into `lines`; the floor after it."""
    others = {product: _read_line(value) for product, value in beside.scan()}
    newest = sorted(others, key=lambda name: _place(name, others[name]), reverse=True)
    taken = newest[: most - len(lines)]
    for product in taken:
        lines[product] = others[product]
        beside.write(product, None)
    left = newest[len(taken) :]
    return _place(left[0], others[left[0]]) if left else None


def _read_line(value: bytes | None) -> BasketLine | None:
    return None if value is None else decode_checked(_decode_line, value, FORMAT, "baskets")[1:]


def _place(product: str, line: BasketLine) -> tuple[int, str]:
    return (line[1], product)


def _counted(lines: dict[str, BasketLine], cap: int) -> dict[str, int]:
    names: Iterable[str] = lines
    if len(lines) > cap:
        names = sorted(lines, key=lambda name: _place(name, lines[name]), reverse=True)[:cap]
    return {name: lines[name][1] // HOUR_US for name in names}


# -- co-purchases


class DeltaAccumulator(dict[str, ProductDelta]):
    """Product -> what changed about it; sums up until it is sent. `pairs` is how many were added."""

    pair_count = 0

    def __init__(self) -> None:
        super().__init__()
        self._purchases: Counter[tuple[str, int, str]] = Counter()

    def __missing__(self, product: str) -> ProductDelta:
        delta = self[product] = ProductDelta()
        return delta

    def add_changes(self, changes: Iterable[PurchaseChange]) -> None:
        """Note what was bought and taken back, and the categories."""
        for _user, product, category, ordered_at, price, sign in changes:
            self._purchases[product, ordered_at, price] += sign
            if category:
                self[product].categories[category][ordered_at // DAY_US] += sign

    def add_basket_change(self, before: dict[str, int], after: dict[str, int]) -> None:
        """Add what it means that a user counted for `before`, each with its hour, and counts for `after`."""
        for counts, others, sign in ((before, after, -1), (after, before, 1)):
            for product, hour in counts.items():
                if others.get(product) == hour:
                    continue
                mine = self[product]
                mine.hours[hour] += sign
                if product in others:
                    continue
                mine.buyers += sign
                self.pair_count += len(counts)
                for other in counts:
                    if other != product:
                        mine.neighbours[other] += sign
                        if other in others:  # the others that come or go tell it of themselves
                            self[other].neighbours[product] += sign

    def drain_records(self) -> Iterator[tuple[str, bytes]]:
        """The records of the topic co-purchases, each with its product; then begin anew."""
        for (product, ordered_at, price), count in self._purchases.items():
            if count:
                self[product].purchases.append((ordered_at, price, count))
        for product, delta in self.items():
            neighbours = [(name, count) for name, count in delta.neighbours.items() if count]
            delta.hours = {hour: count for hour, count in delta.hours.items() if count}
            told = {name: {day: n for day, n in days.items() if n} for name, days in delta.categories.items()}
            delta.categories = {name: days for name, days in told.items() if days}
            # A character has up to 4 bytes.
            longest = max((len(name) for name, _ in neighbours), default=0)
            size = min(NEIGHBOURS_PER_RECORD, RECORD_BYTES // (4 * longest + 8))
            delta.neighbours = dict(neighbours[:size])
            purchases, delta.purchases = delta.purchases, delta.purchases[:PURCHASES_PER_RECORD]
            if delta.neighbours or delta.buyers or delta.hours or delta.categories or delta.purchases:
                yield product, encode(delta)
            for first in range(PURCHASES_PER_RECORD, len(purchases), PURCHASES_PER_RECORD):
                yield product, encode(ProductDelta(purchases=purchases[first : first + PURCHASES_PER_RECORD]))
            for first in range(size, len(neighbours), size):
                yield product, encode(ProductDelta(neighbours=dict(neighbours[first : first + size])))
        self.clear()
        self._purchases.clear()
        self.pair_count = 0


def decode_delta(value: bytes) -> ProductDelta:
    """A record of the topic co-purchases. Raises UnknownFormat."""
    return decode_checked(_decode_delta, value, FORMAT, "co-purchases")


# -- similar


def apply_delta(value: bytes | None, delta: ProductDelta, now_hour: int) -> bytes:
    """What the table `similar` knows of a product, after `delta`; hours that are not recent at `now_hour` are dropped.

    Raises UnknownFormat.
    """
    sales = decode_sales(value)
    hours = sales.hours
    for hour, count in delta.hours.items():
        hours[hour] = hours.get(hour, 0) + count
    recent = retain_counts(hours, now_hour - RETENTION_HOURS, now_hour + MAX_HOURS_AHEAD)
    categories = sales.categories or _known_before(sales.category)
    for name, days in (delta.categories or _told_before(delta.category)).items():
        known = categories.pop(name, CategoryCounts()).add_days(days)
        if known.days or known.older:
            categories[name] = known
    last = now_hour // 24 + 1
    if len(categories) > MAX_CATEGORIES:
        newest_first = sorted(categories, key=lambda name: (categories[name].newest_day(last) or (-math.inf,), name))
        categories = {name: categories[name] for name in newest_first[-MAX_CATEGORIES:]}
    newest = _newest(categories, last)
    return encode(ProductSales(FORMAT, sales.buyers + delta.buyers, newest, recent, dict(sorted(categories.items()))))


def _told_before(category: tuple[int, str] | None) -> dict[str, dict[int, int]]:
    """What a version told that told no more than the newest category."""
    return {} if category is None else {category[1]: {category[0] // DAY_US: 1}}


def _known_before(category: tuple[int, str] | None) -> dict[str, CategoryCounts]:
    """What a version knew that counted no categories: it gives way to any that is told, but not to what is removed."""
    return {} if category is None else {category[1]: CategoryCounts({}, category[0] // DAY_US - 1, 2**40)}


def _newest(categories: dict[str, CategoryCounts], last: int) -> tuple[int, str] | None:
    """The category of the newest purchases; of two on one day that of more, then the first in the alphabet."""
    days = [(one.newest_day(last), name) for name, one in categories.items()]
    best = min(((-day[0], -day[1], name) for day, name in days if day is not None), default=None)
    return None if best is None else (-best[0] * DAY_US, best[2])


def decode_sales(value: bytes | None) -> ProductSales:
    """The same, read. Raises UnknownFormat."""
    return ProductSales() if value is None else decode_checked(_decode_sales, value, FORMAT, "similar")


def decode_sales_summary(value: bytes) -> SalesSummary:
    """The beginning of it. Raises UnknownFormat."""
    return decode_checked(_decode_brief, value, FORMAT, "similar")


def add_pair_count(value: bytes | None, count: int) -> bytes | None:
    """How many users have both of two products, `count` more; None where nobody has."""
    total = decode_pair_count(value) + count
    return encode(total) if total else None


def decode_pair_count(value: bytes | None) -> int:
    """The same, read."""
    return 0 if value is None else _decode_count(value)


def cosine_similarity(both_users: int, first_users: int, second_users: int) -> float:
    """How alike two products are, from 0 to 1, from the numbers of users who have both, the one, and the other.

    The cosine of the two columns of the matrix of users and products (G. Linden, B. Smith, J. York: Amazon.com
    Recommendations, 2003): a product that everybody has is not like every other.
    """
    return both_users / math.sqrt(first_users * second_users)
