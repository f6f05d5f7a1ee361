"""Pure functions behind the history of a product: its newest purchases, and how many there were by hour and by day.

A purchase is no more here than its time and its price: nobody can be known by it, and it is all that is needed to take
one back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from domain.codec import decode_checked, encode
from domain.values import DAY_US, HOUR_US

#: The newest purchases that are kept: of more than the first number the second.
MAX_PURCHASES, TRIM_TO = 200, 150

#: Purchases are counted by the hour for a week and by the day for a quarter, and none dated further ahead than a day.
RETENTION_HOURS, RETENTION_DAYS, MAX_HOURS_AHEAD = 7 * 24, 90, 24
#: Hours, and days, further ahead whose purchases are remembered until they come.
MAX_FUTURE_COUNTS = 168

FORMAT = 1

#: When and at which price a product was bought, and how often more (or less) than before.
PurchaseCount = tuple[int, str, int]


class HistoryPosition(msgspec.Struct, frozen=True, array_like=True):
    """Where a page of a product's purchases ended: the time and price of its last row, and how many of these it had."""

    sort_key: tuple[int, str]
    row_count: int


class HistoryPage(NamedTuple):
    """Times and prices, the mark after them where more follow, and whether none is missing among them."""

    rows: list[tuple[int, str]]
    next_position: HistoryPosition | None
    is_complete: bool


class ProductHistory(msgspec.Struct, frozen=True, array_like=True):
    """What a product's past is known of: counts by hour and by day since 1970, and the newest purchases.

    Purchases up to `floor` (time and price) are not among `newest`; None: all are.
    """

    format: int = FORMAT
    hours: dict[int, int] = {}
    days: dict[int, int] = {}
    floor: tuple[int, str] | None = None
    newest: list[PurchaseCount] = []

    def by_hour(self, now_hour: int) -> dict[int, int]:
        """Purchases by the hour since 1970, of the week that ends at `now_hour`, the oldest first."""
        return counts_between(self.hours, now_hour - RETENTION_HOURS, now_hour + MAX_HOURS_AHEAD)

    def by_day(self, now_hour: int) -> dict[int, int]:
        """Purchases by the day since 1970, of the quarter that ends at `now_hour`, the oldest first."""
        return counts_between(self.days, now_hour // 24 - RETENTION_DAYS, (now_hour + MAX_HOURS_AHEAD) // 24)

    def page_after(self, limit: int, after: HistoryPosition | None = None) -> HistoryPage:
        """The newest purchases that come after a mark, newest first, at most `limit`."""
        rows: list[tuple[int, str]] = []
        # What is taken back before it is told (in another record) counts less than nothing for a moment.
        for *place, count in sorted(self.newest, key=lambda one: one[:2], reverse=True):
            if after is not None and tuple(place) >= after.sort_key:
                count -= after.row_count if tuple(place) == after.sort_key else count
            rows += [tuple(place)] * count
        page = rows[:limit]
        if len(rows) == len(page):
            return HistoryPage(page, None, self.floor is None)
        last = page[-1]
        before = after.row_count if after is not None and after.sort_key == last else 0
        return HistoryPage(page, HistoryPosition(last, before + page.count(last)), is_complete=True)


_decode = msgspec.msgpack.Decoder(ProductHistory).decode


def decode_history(value: bytes | None) -> ProductHistory:
    """The history of a product as the table `similar` has it. Raises UnknownFormat."""
    return ProductHistory() if value is None else decode_checked(_decode, value, FORMAT, "similar")


def add_purchases(
    value: bytes | None,
    purchases: Iterable[PurchaseCount],
    now_hour: int,
    max_entries: int = MAX_PURCHASES,
    trim_to: int = TRIM_TO,
) -> bytes:
    """What the history becomes by `purchases`, in any order; counts too old at `now_hour` are dropped.

    Raises UnknownFormat.
    """
    known = decode_history(value)
    hours, days, floor = Counter(known.hours), Counter(known.days), known.floor
    newest = Counter({(ordered_at, price): count for ordered_at, price, count in known.newest})
    for ordered_at, price, count in purchases:
        hours[ordered_at // HOUR_US] += count
        days[ordered_at // DAY_US] += count
        if floor is None or (ordered_at, price) > floor:
            newest[ordered_at, price] += count
    places = sorted(place for place, count in newest.items() if count)
    if len(places) > max_entries:
        floor, places = places[-trim_to - 1], places[-trim_to:]
    return encode(
        ProductHistory(
            FORMAT,
            retain_counts(hours, now_hour - RETENTION_HOURS, now_hour + MAX_HOURS_AHEAD),
            retain_counts(days, now_hour // 24 - RETENTION_DAYS, (now_hour + MAX_HOURS_AHEAD) // 24),
            floor,
            [(*place, newest[place]) for place in places],
        )
    )


def counts_between(counts: dict[int, int], first: int, last: int) -> dict[int, int]:
    """The counts of the hours (or days) from `first` to `last`."""
    return {at: count for at, count in counts.items() if first <= at <= last}


def retain_counts(counts: dict[int, int], first: int, last: int) -> dict[int, int]:
    """The counts worth keeping, in order: none before `first`, and of those after `last` the next MOST_AHEAD.

    What was told ahead of its time and is taken back when that has come must not be missing in what others bought.
    """
    told = {at: counts[at] for at in sorted(counts) if counts[at] and at >= first}
    for at in [at for at in told if at > last][MAX_FUTURE_COUNTS:]:
        del told[at]
    return told
