"""The history of a product: its newest purchases, and its number of purchases by hour and by day.

A purchase is only a time and a price: this identifies no person, and suffices to remove it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from domain.codec import decode_checked, encode
from domain.values import DAY_US, HOUR_US

#: A history with more purchases than MAX_PURCHASES is trimmed to the newest TRIM_TO.
MAX_PURCHASES, TRIM_TO = 200, 150

#: Counts by hour are stored for a week, counts by day for a quarter.
RETENTION_HOURS, RETENTION_DAYS = 7 * 24, 90
#: Purchases that are dated further ahead do not appear in results.
MAX_HOURS_AHEAD = 24
#: The number of later hours, and of later days, whose counts are stored until their time comes.
MAX_FUTURE_COUNTS = 168

FORMAT = 1

#: Time and price of purchases of a product, and the number of purchases that were added (or, below
#: 0, removed).
PurchaseCount = tuple[int, str, int]


class HistoryPosition(msgspec.Struct, frozen=True, array_like=True):
    """The end of a page: time and price of its last row, and the number of such rows so far."""

    sort_key: tuple[int, str]
    row_count: int


class HistoryPage(NamedTuple):
    """A page of purchases (time, price). `next_position` is None on the last page.

    `is_complete` is false if older purchases are missing, because the history does not store them.
    """

    rows: list[tuple[int, str]]
    next_position: HistoryPosition | None
    is_complete: bool


class ProductHistory(msgspec.Struct, frozen=True, array_like=True):
    """The number of purchases by hour and by day since 1970, and the newest purchases.

    Purchases up to `floor` (time and price) are not in `newest`; None: `newest` contains all
    purchases.
    """

    format: int = FORMAT
    hours: dict[int, int] = {}
    days: dict[int, int] = {}
    floor: tuple[int, str] | None = None
    newest: list[PurchaseCount] = []

    def by_hour(self, now_hour: int) -> dict[int, int]:
        """Return hour since 1970 -> purchases, for the week before `now_hour`, oldest first."""
        return counts_between(self.hours, now_hour - RETENTION_HOURS, now_hour + MAX_HOURS_AHEAD)

    def by_day(self, now_hour: int) -> dict[int, int]:
        """Return day since 1970 -> purchases, for the quarter before `now_hour`, oldest first."""
        return counts_between(self.days, now_hour // 24 - RETENTION_DAYS, (now_hour + MAX_HOURS_AHEAD) // 24)

    def page_after(self, limit: int, after: HistoryPosition | None = None) -> HistoryPage:
        """Return the newest purchases after a position, newest first, at most `limit`."""
        rows: list[tuple[int, str]] = []
        for ordered_at, price, count in sorted(self.newest, key=lambda entry: entry[:2], reverse=True):
            sort_key = (ordered_at, price)
            if after is not None and sort_key >= after.sort_key:
                count -= after.row_count if sort_key == after.sort_key else count
            # A count is below 0 while the removal of a purchase has arrived and the purchase has
            # not.
            rows += [sort_key] * count
        page = rows[:limit]
        if len(rows) == len(page):
            return HistoryPage(page, None, self.floor is None)
        last = page[-1]
        rows_before = after.row_count if after is not None and after.sort_key == last else 0
        return HistoryPage(page, HistoryPosition(last, rows_before + page.count(last)), is_complete=True)


_decode = msgspec.msgpack.Decoder(ProductHistory).decode


def decode_history(value: bytes | None) -> ProductHistory:
    """Decode a history in the table `similar`; None: no purchases. Raises UnknownFormat."""
    return ProductHistory() if value is None else decode_checked(_decode, value, FORMAT, "similar")


def add_purchases(
    value: bytes | None,
    purchases: Iterable[PurchaseCount],
    now_hour: int,
    max_entries: int = MAX_PURCHASES,
    trim_to: int = TRIM_TO,
) -> bytes:
    """Add purchases in any order to a history, and return its new value.

    Counts that are too old at `now_hour` (hours since 1970) are dropped. Raises UnknownFormat.
    """
    history = decode_history(value)
    hours, days, floor = Counter(history.hours), Counter(history.days), history.floor
    newest = Counter({(ordered_at, price): count for ordered_at, price, count in history.newest})
    for ordered_at, price, count in purchases:
        hours[ordered_at // HOUR_US] += count
        days[ordered_at // DAY_US] += count
        if floor is None or (ordered_at, price) > floor:
            newest[ordered_at, price] += count
    sort_keys = sorted(sort_key for sort_key, count in newest.items() if count)
    if len(sort_keys) > max_entries:
        floor, sort_keys = sort_keys[-trim_to - 1], sort_keys[-trim_to:]
    return encode(
        ProductHistory(
            FORMAT,
            retain_counts(hours, now_hour - RETENTION_HOURS, now_hour + MAX_HOURS_AHEAD),
            retain_counts(days, now_hour // 24 - RETENTION_DAYS, (now_hour + MAX_HOURS_AHEAD) // 24),
            floor,
            [(*sort_key, newest[sort_key]) for sort_key in sort_keys],
        )
    )


def counts_between(counts: dict[int, int], first: int, last: int) -> dict[int, int]:
    """Return the counts of the hours (or days) from `first` to `last`."""
    return {time: count for time, count in counts.items() if first <= time <= last}


def retain_counts(counts: dict[int, int], first: int, last: int) -> dict[int, int]:
    """Return the counts to store, sorted.

    These are the counts from `first` on, at most MAX_FUTURE_COUNTS of them after `last`.
    Future counts are stored because a purchase may be removed after its time has come: without them
    the removal would reduce the count of other purchases.
    """
    retained = {time: counts[time] for time in sorted(counts) if counts[time] and time >= first}
    for time in [time for time in retained if time > last][MAX_FUTURE_COUNTS:]:
        del retained[time]
    return retained
