"""Pages of a user's purchases, newest first: filtered, and grouped by order or product.

A page starts after a sort key, not after a number of rows: purchases that arrive between two pages
neither repeat rows nor hide them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from decimal import Decimal
from typing import Generic, NamedTuple, TypeVar

import msgspec

from domain.purchases import Purchase, SortKey
from domain.values import EXACT, money

Row = TypeVar("Row")
#: All purchases of one order or of one product, newest first.
PurchaseGroup = list[Purchase]


class PurchaseFilter(NamedTuple):
    """Selects purchases ordered from `since` to before `until` (microseconds), paid in one way.

    None in a field: any value.
    """

    since: int | None = None
    until: int | None = None
    payment_method: str | None = None

    def matches(self, purchase: Purchase) -> bool:
        """Return True if the filter selects the purchase."""
        return (
            (self.since is None or purchase.ordered_at >= self.since)
            and (self.until is None or purchase.ordered_at < self.until)
            and (self.payment_method is None or purchase.payment_method == self.payment_method)
        )


class PagePosition(msgspec.Struct, frozen=True, array_like=True):
    """The end of a page: the sort key of its last row, and the number of rows on all pages so far.

    `max_version` is the newest version among the user's purchases when the first page was made.
    """

    sort_key: SortKey
    rank: int
    max_version: int


class PurchasesPage(msgspec.Struct, Generic[Row], frozen=True):
    """The rows of a page, the position for the next page, and the time of the oldest purchase.

    `next_position` is None on the last page, `oldest_ordered_at` on an empty one.
    """

    rows: list[Row]
    next_position: PagePosition | None
    oldest_ordered_at: int | None


def paginate_purchases(purchases: list[Purchase], after: PagePosition | None, limit: int) -> PurchasesPage[Purchase]:
    """Make a page of purchases.

    `purchases` are sorted, newest first, and contain at least the newest `limit` + 1 after the
    position `after`.
    """
    ranked = purchases if after is None else [purchase for purchase in purchases if purchase.sort_key < after.sort_key]
    rows = ranked[:limit]
    if not rows:
        return PurchasesPage([], None, None)
    rank = (after.rank if after else 0) + len(rows)
    end = PagePosition(rows[-1].sort_key, rank, 0) if len(ranked) > limit else None
    return PurchasesPage(rows, end, rows[-1].ordered_at)


def paginate_orders(purchases: list[Purchase], after: PagePosition | None, limit: int) -> PurchasesPage[PurchaseGroup]:
    """Make a page of orders, sorted by their newest purchase.

    `purchases` are all purchases that the filter selects, newest first.
    """
    return _paginate_groups(purchases, lambda purchase: purchase.order_id, after, limit)


def paginate_products(
    purchases: list[Purchase], after: PagePosition | None, limit: int
) -> PurchasesPage[PurchaseGroup]:
    """Make a page of products, sorted by their newest purchase.

    `purchases` are all purchases that the filter selects, newest first.
    """
    return _paginate_groups(purchases, lambda purchase: purchase.product_name, after, limit)


def sum_prices(purchases: PurchaseGroup) -> str:
    """Return the exact sum of the prices, formatted as money."""
    amount = Decimal(0)
    for purchase in purchases:
        amount = EXACT.add(amount, Decimal(purchase.price))
    return money(amount)


def _paginate_groups(
    purchases: list[Purchase],
    group_key: Callable[[Purchase], Hashable],
    after: PagePosition | None,
    limit: int,
) -> PurchasesPage[PurchaseGroup]:
    groups: dict[Hashable, PurchaseGroup] = {}
    for purchase in purchases:
        groups.setdefault(group_key(purchase), []).append(purchase)
    max_version = after.max_version if after else max((purchase.version for purchase in purchases), default=0)

    # A group is sorted by its newest purchase as of the first page. Otherwise a new purchase could
    # move the group across the position, and the group would be listed twice or not at all.
    def group_sort_key(group: PurchaseGroup) -> SortKey:
        return next((purchase.sort_key for purchase in group if purchase.version <= max_version), group[0].sort_key)

    ranked = sorted(groups.values(), key=group_sort_key, reverse=True)
    if after is not None:
        ranked = [group for group in ranked if group_sort_key(group) < after.sort_key]
    selected = ranked[:limit]
    rank = (after.rank if after else 0) + len(selected)
    end = PagePosition(group_sort_key(selected[-1]), rank, max_version) if len(ranked) > limit else None
    oldest = min((group[-1].ordered_at for group in selected), default=None)
    return PurchasesPage(selected, end, oldest)
