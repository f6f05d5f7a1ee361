"""Pure functions over a user's purchases, newest first: filtered, grouped by order or product, and page by page.

A page goes on after a place in the order of the list, not after a number of rows, so what arrives between two pages
neither repeats nor hides what was there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from decimal import Decimal
from typing import NamedTuple

import msgspec

from domain.purchases import Purchase
from domain.values import EXACT, money, utc_datetime


class PurchaseFilter(NamedTuple):
    """Which purchases are wanted: ordered at `since` or later, before `until` (microseconds), paid in this way."""

    since: int | None = None
    until: int | None = None
    payment_method: str | None = None

    def matches(self, one: Purchase) -> bool:
        """Whether a purchase is wanted."""
        return (
            (self.since is None or one.ordered_at >= self.since)
            and (self.until is None or one.ordered_at < self.until)
            and (self.payment_method is None or one.payment_method == self.payment_method)
        )


class PagePosition(msgspec.Struct, frozen=True, array_like=True):
    """Where a page ended: the place of its last row, how many rows were shown up to it, and the newest version that
    the user's purchases had when the first page was made."""

    sort_key: tuple[int, int, int, str, str]
    rank: int
    max_version: int


class PurchasesPage(NamedTuple):
    """Rows as they are shown, the mark after the last of them where more follow, and when the oldest was ordered."""

    rows: list[dict[str, object]]
    next_position: PagePosition | None
    oldest_ordered_at: int | None


def paginate_purchases(purchases: list[Purchase], after: PagePosition | None, limit: int) -> PurchasesPage:
    """A page of purchases; of what comes after the mark, `known` must hold the newest `limit` + 1, or all."""
    ranked = purchases if after is None else [one for one in purchases if one.sort_key < after.sort_key]
    rank = after.rank if after else 0
    shown = ranked[:limit]
    rows = [purchase_row(one) for one in shown]
    for position, row in enumerate(rows, rank + 1):
        row["position"] = position
    mark = PagePosition(shown[-1].sort_key, rank + len(shown), 0) if len(ranked) > limit else None
    return PurchasesPage(rows, mark, shown[-1].ordered_at if shown else None)


def paginate_orders(purchases: list[Purchase], after: PagePosition | None, limit: int) -> PurchasesPage:
    """A page of orders, each at the place of its newest purchase; `known` holds all purchases wanted."""
    return _groups(purchases, lambda one: one.order_id, _order, after, limit)


def paginate_products(purchases: list[Purchase], after: PagePosition | None, limit: int) -> PurchasesPage:
    """A page of products, each at the place of its newest purchase; `known` holds all purchases wanted."""
    return _groups(purchases, lambda one: one.product_name, _product, after, limit)


def purchase_row(purchase: Purchase) -> dict[str, object]:
    """A purchase as programs and pages see it once it is JSON: order id and price as text, time in RFC 3339."""
    return {
        "order_id": str(purchase.order_id),
        "product_name": purchase.product_name,
        "price": purchase.price,
        "ordered_at": utc_datetime(purchase.ordered_at),
        "payment_method": purchase.payment_method,
        "category": purchase.category,
    }


def _order(lines: list[Purchase]) -> dict[str, object]:
    newest = purchase_row(lines[0])
    return {
        "order_id": newest["order_id"],
        "ordered_at": newest["ordered_at"],
        "payment_method": newest["payment_method"],
        "items": [{name: said for name, said in purchase_row(one).items() if name != "order_id"} for one in lines],
        "total": _sum(lines),
    }


def _product(lines: list[Purchase]) -> dict[str, object]:
    return {
        "product_name": lines[0].product_name,
        "purchases": len(lines),
        "last_ordered_at": utc_datetime(lines[0].ordered_at),
        "spent": _sum(lines),
    }


def _sum(lines: list[Purchase]) -> str:
    amount = Decimal(0)
    for one in lines:
        amount = EXACT.add(amount, Decimal(one.price))
    return money(amount)


def _groups(
    known: list[Purchase],
    key: Callable[[Purchase], Hashable],
    shape: Callable[[list[Purchase]], dict[str, object]],
    after: PagePosition | None,
    limit: int,
) -> PurchasesPage:
    groups: dict[Hashable, list[Purchase]] = {}
    for one in known:
        groups.setdefault(key(one), []).append(one)
    version = (
        after.max_version if after else max((one.version for lines in groups.values() for one in lines), default=0)
    )

    # What arrived since the first page must not move a group over the mark: it would be shown twice, or not at all.
    def rank_by(lines: list[Purchase]) -> tuple:
        return next((one.sort_key for one in lines if one.version <= version), lines[0].sort_key)

    ranked = sorted(groups.values(), key=rank_by, reverse=True)
    if after is not None:
        ranked = [lines for lines in ranked if rank_by(lines) < after.sort_key]
    shown = ranked[:limit]
    rank = (after.rank if after else 0) + len(shown)
    mark = PagePosition(rank_by(shown[-1]), rank, version) if len(ranked) > limit else None
    return PurchasesPage(
        [shape(lines) for lines in shown], mark, min((lines[-1].ordered_at for lines in shown), default=None)
    )
