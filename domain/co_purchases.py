"""Co-purchases ("also bought"): baskets of users, their deltas, and the similarity of products.

The basket of a user contains the DISTINCT_CAP products that the user bought last: a cap, so that
users with very many purchases have no greater weight. A change of a basket results in deltas of
products. Deltas can be added in any order (docs/decisions/007-co-purchases-by-deltas.md).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from domain.codec import UNDECODABLE, decode_checked, encode
from domain.errors import UnknownFormat
from domain.product_history import MAX_HOURS_AHEAD, RETENTION_HOURS, PurchaseCount, retain_counts
from domain.purchases import PurchaseChange
from domain.values import DAY_US, HOUR_US

#: The number of products in the basket of a user.
DISTINCT_CAP = 64
#: The number of further products in the same value. They refill the basket after removals.
SPARE = 64

#: The maximum of changes in one record. It limits an agent step, which processes one record, to
#: some milliseconds.
CHANGES_PER_RECORD = 250
#: The number of days with a count of their own per category; the counts of older days are one sum.
CATEGORY_DAYS = 7
#: The maximum of categories that are stored per product.
MAX_CATEGORIES = 16
NEIGHBOURS_PER_RECORD = PURCHASES_PER_RECORD = 1_000
#: Kafka accepts records up to 1 MiB.
RECORD_BYTES = 800_000
#: Scores are integers of this unit, so that a sum does not depend on the order of its terms.
SCORE_UNIT = 1_000_000

FORMAT = 1

#: Of one product and one user: the number of purchases, and the time of the newest one in
#: microseconds.
BasketLine = tuple[int, int]


class Basket(msgspec.Struct, frozen=True, array_like=True):
    """The products that a user bought last, by name.

    The overflow contains no product that was bought after `floor` (time, name); None: the overflow
    is empty.
    """

    format: int
    floor: tuple[int, str] | None = None
    lines: dict[str, BasketLine] = {}


class BasketOverflow(NamedTuple):
    """Access to the other products of a user, each with a value of its own; write None: delete."""

    read: Callable[[str], bytes | None]
    write: Callable[[str, bytes | None], None]
    scan: Callable[[], Iterable[tuple[str, bytes]]]


class ProductDelta(msgspec.Struct, array_like=True):
    """The differences of a product since the last delta.

    `neighbours` counts users by the other products in their baskets, `buyers` all users, `hours`
    users by the hour of their last purchase. `categories` counts the purchases of each category by
    day. Only older versions of Lately wrote `category`, the newest category. `purchases` were added
    or removed, see domain.product_history.
    """

    format: int = FORMAT
    neighbours: dict[str, int] = msgspec.field(default_factory=Counter)
    buyers: int = 0
    category: tuple[int, str] | None = None
    hours: dict[int, int] = msgspec.field(default_factory=Counter)
    purchases: list[PurchaseCount] = msgspec.field(default_factory=list)
    categories: dict[str, dict[int, int]] = msgspec.field(default_factory=lambda: defaultdict(Counter))


class CategoryCounts(msgspec.Struct, frozen=True, array_like=True):
    """The number of purchases of a product with one category.

    `days` counts by day, `older` counts all days up to `floor`.
    """

    days: dict[int, int] = {}
    floor: int | None = None
    older: int = 0

    def add_days(self, counts: dict[int, int], max_days: int = CATEGORY_DAYS) -> CategoryCounts:
        """Return the counts with the counts of some days added."""
        days, floor, older = self.days.copy(), self.floor, self.older
        for day, count in counts.items():
            if floor is not None and day <= floor:
                older += count
            else:
                days[day] = days.get(day, 0) + count
        newest = {day: days[day] for day in sorted(days) if days[day]}
        while len(newest) > max_days:
            floor = next(iter(newest))
            older += newest.pop(floor)
        return CategoryCounts(newest, floor, older)

    def newest_day(self, last_day: int) -> tuple[int, int] | None:
        """Return the newest day with purchases up to `last_day`, and their number.

        If there are only days after `last_day`, the oldest of them is returned as a negative
        number, so that it ranks below all others. None: there are no purchases.
        """
        future = None
        for day, count in reversed(self.days.items()):
            if count > 0 and day <= last_day:
                return day, count
            if count > 0:
                future = -day, count
        if self.older > 0 and self.floor is not None:
            return (self.floor if self.floor <= last_day else -self.floor), self.older
        return future


class ProductSales(msgspec.Struct, frozen=True, array_like=True):
    """A product in the table `similar`, without its neighbours; the sum of its ProductDeltas.

    `category` is the start of the day of the newest purchases with a category, and that category.
    """

    format: int = FORMAT
    buyers: int = 0
    category: tuple[int, str] | None = None
    hours: dict[int, int] = {}
    categories: dict[str, CategoryCounts] = {}


_decode_changes = msgspec.msgpack.Decoder(tuple[int, list[PurchaseChange]]).decode
_decode_basket = msgspec.msgpack.Decoder(Basket).decode
_decode_line = msgspec.msgpack.Decoder(tuple[int, int, int]).decode
_decode_delta = msgspec.msgpack.Decoder(ProductDelta).decode
_decode_sales = msgspec.msgpack.Decoder(ProductSales).decode
_decode_extract = msgspec.msgpack.Decoder(tuple[int, int, str | None, dict[int, int]]).decode
_decode_count = msgspec.msgpack.Decoder(int).decode


# -- purchase-changes


def encode_changes(changes: list[PurchaseChange]) -> Iterator[bytes]:
    """Encode changes as records of the topic purchase-changes, as few as the limits allow."""
    for first in range(0, len(changes), CHANGES_PER_RECORD):
        yield from _split_record(changes[first : first + CHANGES_PER_RECORD])


def _split_record(changes: list[PurchaseChange]) -> Iterator[bytes]:
    record = encode((FORMAT, changes))
    if len(record) <= RECORD_BYTES or len(changes) == 1:
        yield record
    else:
        middle = len(changes) // 2
        yield from _split_record(changes[:middle])
        yield from _split_record(changes[middle:])


def decode_changes(value: bytes) -> list[PurchaseChange]:
    """Decode a record of the topic purchase-changes. Raises UnknownFormat."""
    return decode_checked(_decode_changes, value, FORMAT, "purchase-changes")[1]


# -- baskets


def apply_changes(
    value: bytes | None,
    changes: Iterable[PurchaseChange],
    overflow: BasketOverflow,
    cap: int = DISTINCT_CAP,
    spare: int = SPARE,
) -> tuple[bytes | None, dict[str, int], dict[str, int]]:
    """Apply changes of one user, in their order, to the user's basket.

    Returns the new value, and the products of the basket before and after, each with the hour of
    its last purchase. The removal of a purchase that was never added changes nothing. The removal
    of one of several purchases of a product does not change the time of the last one. Raises
    UnknownFormat.
    """
    basket = Basket(FORMAT) if value is None else decode_basket(value)
    lines, floor = dict(basket.lines), basket.floor
    before = _basket_hours(lines, cap)
    for _user, product, _category, ordered_at, _price, sign in changes:
        line, is_in_overflow = lines.get(product), False
        if line is None and floor is not None:
            entry = overflow.read(product)
            if entry is not None:
                line, is_in_overflow = decode_overflow_line(entry), True
        if line is None:
            if sign < 0:
                continue
            line = (0, ordered_at)
        count, last = line[0] + sign, max(line[1], ordered_at) if sign > 0 else line[1]
        if floor is not None and (last, product) <= floor:
            overflow.write(product, encode((FORMAT, count, last)) if count else None)
            continue
        if is_in_overflow:
            overflow.write(product, None)
        if count:
            lines[product] = (count, last)
        else:
            lines.pop(product, None)
        if len(lines) > cap + spare:
            oldest = min(lines, key=lambda name: _line_sort_key(name, lines[name]))
            floor = _line_sort_key(oldest, lines[oldest])
            overflow.write(oldest, encode((FORMAT, *lines.pop(oldest))))
        elif len(lines) < cap and floor is not None:
            floor = _refill(lines, overflow, cap + spare)
    is_empty = not lines and floor is None
    return None if is_empty else encode(Basket(FORMAT, floor, lines)), before, _basket_hours(lines, cap)


def _refill(lines: dict[str, BasketLine], overflow: BasketOverflow, max_lines: int) -> tuple[int, str] | None:
    """Move the newest products of the overflow to `lines`, and return the new floor."""
    entries = {product: decode_overflow_line(entry) for product, entry in overflow.scan()}
    newest = sorted(entries, key=lambda name: _line_sort_key(name, entries[name]), reverse=True)
    moved = newest[: max_lines - len(lines)]
    for product in moved:
        lines[product] = entries[product]
        overflow.write(product, None)
    remaining = newest[len(moved) :]
    return _line_sort_key(remaining[0], entries[remaining[0]]) if remaining else None


def decode_basket(value: bytes) -> Basket:
    """Decode a basket of the table `baskets`. Raises UnknownFormat."""
    return decode_checked(_decode_basket, value, FORMAT, "baskets")


def decode_overflow_line(entry: bytes) -> BasketLine:
    """Decode another product of a user in the table `baskets`. Raises UnknownFormat."""
    return decode_checked(_decode_line, entry, FORMAT, "baskets")[1:]


def _line_sort_key(product: str, line: BasketLine) -> tuple[int, str]:
    return (line[1], product)


def _basket_hours(lines: dict[str, BasketLine], cap: int) -> dict[str, int]:
    """Return the products of the basket, each with the hour of its last purchase."""
    products: Iterable[str] = lines
    if len(lines) > cap:
        products = sorted(lines, key=lambda name: _line_sort_key(name, lines[name]), reverse=True)[:cap]
    return {product: lines[product][1] // HOUR_US for product in products}


# -- co-purchases


class DeltaAccumulator(dict[str, ProductDelta]):
    """Product -> its differences since the records were drained.

    `pair_count` is the number of pairs of products that were added; it limits the memory.
    """

    pair_count = 0

    def __init__(self) -> None:
        super().__init__()
        self._purchases: Counter[tuple[str, int, str]] = Counter()

    def __missing__(self, product: str) -> ProductDelta:
        delta = self[product] = ProductDelta()
        return delta

    def add_changes(self, changes: Iterable[PurchaseChange]) -> None:
        """Add the purchases that were added or removed, and their categories."""
        for _user, product, category, ordered_at, price, sign in changes:
            self._purchases[product, ordered_at, price] += sign
            if category:
                self[product].categories[category][ordered_at // DAY_US] += sign

    def add_basket_change(self, before: dict[str, int], after: dict[str, int]) -> None:
        """Add the change of one user's basket: the products and their hours before and after."""
        for products, opposite, sign in ((before, after, -1), (after, before, 1)):
            for product, hour in products.items():
                if opposite.get(product) == hour:
                    continue
                delta = self[product]
                delta.hours[hour] += sign
                if product in opposite:
                    continue
                delta.buyers += sign
                self.pair_count += len(products)
                for neighbour in products:
                    if neighbour != product:
                        delta.neighbours[neighbour] += sign
                        # A neighbour that also enters or leaves the basket adds its side of the
                        # pair itself.
                        if neighbour in opposite:
                            self[neighbour].neighbours[product] += sign

    def drain_records(self) -> Iterator[tuple[str, bytes]]:
        """Yield (product, record of the topic co-purchases), and empty the accumulator."""
        for (product, ordered_at, price), count in self._purchases.items():
            if count:
                self[product].purchases.append((ordered_at, price, count))
        for product, delta in self.items():
            neighbours = [(name, count) for name, count in delta.neighbours.items() if count]
            delta.hours = {hour: count for hour, count in delta.hours.items() if count}
            categories = {name: {day: n for day, n in days.items() if n} for name, days in delta.categories.items()}
            delta.categories = {name: days for name, days in categories.items() if days}
            # A character of a name has up to 4 bytes.
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
    """Decode a record of the topic co-purchases. Raises UnknownFormat."""
    return decode_checked(_decode_delta, value, FORMAT, "co-purchases")


# -- similar


def apply_delta(value: bytes | None, delta: ProductDelta, now_hour: int) -> ProductSales:
    """Add a delta to a product of the table `similar`, and return its new sales.

    Hours that are too old at `now_hour` (hours since 1970) are dropped. Raises UnknownFormat.
    """
    sales = decode_sales(value)
    hours = sales.hours
    for hour, count in delta.hours.items():
        hours[hour] = hours.get(hour, 0) + count
    recent = retain_counts(hours, now_hour - RETENTION_HOURS, now_hour + MAX_HOURS_AHEAD)
    categories = sales.categories or _uncounted_sales_category(sales.category)
    for name, days in (delta.categories or _uncounted_delta_category(delta.category)).items():
        counts = categories.pop(name, CategoryCounts()).add_days(days)
        if counts.days or counts.older:
            categories[name] = counts
    last_day = now_hour // 24 + 1
    if len(categories) > MAX_CATEGORIES:
        ranked = sorted(categories, key=lambda name: (categories[name].newest_day(last_day) or (-math.inf,), name))
        categories = {name: categories[name] for name in ranked[-MAX_CATEGORIES:]}
    newest = _newest_category(categories, last_day)
    return ProductSales(FORMAT, sales.buyers + delta.buyers, newest, recent, dict(sorted(categories.items())))


def _uncounted_delta_category(category: tuple[int, str] | None) -> dict[str, dict[int, int]]:
    """Convert the newest category in a delta of a version that did not count categories."""
    return {} if category is None else {category[1]: {category[0] // DAY_US: 1}}


def _uncounted_sales_category(category: tuple[int, str] | None) -> dict[str, CategoryCounts]:
    """Convert the newest category in a value of a version that did not count categories.

    Any category that is counted later is newer. The count is so great that removals do not remove
    the category.
    """
    return {} if category is None else {category[1]: CategoryCounts({}, category[0] // DAY_US - 1, 2**40)}


def _newest_category(categories: dict[str, CategoryCounts], last_day: int) -> tuple[int, str] | None:
    """Return the category with the newest day; of equal days the most frequent, then by name."""
    days = [(counts.newest_day(last_day), name) for name, counts in categories.items()]
    newest = min(((-day[0], -day[1], name) for day, name in days if day is not None), default=None)
    return None if newest is None else (-newest[0] * DAY_US, newest[2])


def decode_sales(value: bytes | None) -> ProductSales:
    """Decode a product of the table `similar`; None: no purchases. Raises UnknownFormat."""
    return ProductSales() if value is None else decode_checked(_decode_sales, value, FORMAT, "similar")


def encode_sales(sales: ProductSales) -> bytes:
    """Encode a product of the table `similar`."""
    return encode(sales)


# -- product_sales


def encode_extract(sales: ProductSales) -> bytes:
    """Encode a row of the table `product_sales`: buyers, newest category, and buyers by hour."""
    return encode((FORMAT, sales.buyers, None if sales.category is None else sales.category[1], sales.hours))


def decode_extract(value: bytes) -> tuple[int, str | None, dict[int, int]]:
    """Decode a row of the table `product_sales`. Raises UnknownFormat."""
    return decode_checked(_decode_extract, value, FORMAT, "product_sales")[1:]


def count_recent_buyers(hours: dict[int, int], windows: Sequence[int], now_hour: int) -> list[int]:
    """Return for each window the number of users whose last purchase of a product is in it.

    `hours` counts users by the hour of their last purchase; a window is a number of hours before
    `now_hour`. Purchases that are dated more than MAX_HOURS_AHEAD ahead do not count.
    """
    ages = [(now_hour - hour, count) for hour, count in hours.items() if hour <= now_hour + MAX_HOURS_AHEAD]
    return [sum(count for age, count in ages if age <= window) for window in windows]


def add_pair_count(value: bytes | None, count: int) -> bytes | None:
    """Add to the number of users who bought two products; return the new value, None for 0."""
    total = decode_pair_count(value) + count
    return encode(total) if total else None


def decode_pair_count(value: bytes | None) -> int:
    """Decode the number of users who bought two products; None: 0. Raises UnknownFormat."""
    if value is None:
        return 0
    try:
        return _decode_count(value)
    except UNDECODABLE as exc:  # it has no format number
        raise UnknownFormat(f"a number of common buyers in the table similar cannot be read ({exc})") from None


def score_neighbours(common_buyers: Mapping[str, int], buyers: Iterable[int], product_buyers: int) -> dict[str, int]:
    """Return the similarity of a product to each of its neighbours, from 0 to SCORE_UNIT.

    `common_buyers` are by neighbour, `buyers` are those of each neighbour in the same order, and
    `product_buyers` those of the product. It is the cosine of the two columns of the matrix of
    users and products (G. Linden, B. Smith, J. York: Amazon.com Recommendations, 2003). A product
    that every user bought is therefore not similar to all products.
    """
    sqrt = math.sqrt
    # Both products and the pair learn of a new buyer at different times: a product has at least the
    # buyers that it has in common with the other. (A call of max takes longer.)
    return {
        name: round(
            common
            / sqrt((common if common > product_buyers else product_buyers) * (common if common > other else other))
            * SCORE_UNIT
        )
        for (name, common), other in zip(common_buyers.items(), buyers, strict=True)
        if common > 0
    }
