"""Pure functions over a user's purchases, newest first: filtered, grouped by order or product, and page by page.

A page goes on after a place in the order of the list, not after a number of rows, so what arrives between two pages
neither repeats nor hides what was there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from decimal import Decimal
from typing import NamedTuple

import msgspec

from domain.purchases import Register
from domain.values import EXACT, moment, money


class Filter(NamedTuple):
    """Which purchases are wanted: ordered at `since` or later, before `until` (microseconds), paid in this way."""

    since: int | None = None
    until: int | None = None
    payment_method: str | None = None

    def admits(self, one: Register) -> bool:
        """Whether a purchase is wanted."""
        return (
            (self.since is None or one.ordered_at >= self.since)
            and (self.until is None or one.ordered_at < self.until)
            and (self.payment_method is None or one.payment_method == self.payment_method)
        )


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """Where a page ended: the place of its last row, how many rows were shown up to it, and the newest version that
    the user's purchases had when the first page was made."""

    place: tuple[int, int, int, str, str]
    rank: int
    version: int


class Page(NamedTuple):
    """Rows as they are shown, the mark after the last of them where more follow, and when the oldest was ordered."""

    rows: list[dict[str, object]]
    next: Mark | None
    oldest: int | None


def purchases(known: list[Register], after: Mark | None, limit: int) -> Page:
    """A page of purchases; of what comes after the mark, `known` must hold the newest `limit` + 1, or all."""
    ranked = known if after is None else [one for one in known if one.place < after.place]
    rank = after.rank if after else 0
    shown = ranked[:limit]
    rows = [purchase(one) for one in shown]
    for position, row in enumerate(rows, rank + 1):
        row["position"] = position
    mark = Mark(shown[-1].place, rank + len(shown), 0) if len(ranked) > limit else None
    return Page(rows, mark, shown[-1].ordered_at if shown else None)


def orders(known: list[Register], after: Mark | None, limit: int) -> Page:
    """A page of orders, each at the place of its newest purchase; `known` holds all purchases wanted."""
    return _groups(known, lambda one: one.order_id, _order, after, limit)


def products(known: list[Register], after: Mark | None, limit: int) -> Page:
    """A page of products, each at the place of its newest purchase; `known` holds all purchases wanted."""
    return _groups(known, lambda one: one.product_name, _product, after, limit)


def purchase(one: Register) -> dict[str, object]:
    """A purchase as programs and pages see it once it is JSON: order id and price as text, time in RFC 3339."""
    return {
        "order_id": str(one.order_id),
        "product_name": one.product_name,
        "price": one.price,
        "ordered_at": moment(one.ordered_at),
        "payment_method": one.payment_method,
        "category": one.category,
    }


def _order(lines: list[Register]) -> dict[str, object]:
    newest = purchase(lines[0])
    return {
        "order_id": newest["order_id"],
        "ordered_at": newest["ordered_at"],
        "payment_method": newest["payment_method"],
        "items": [{name: said for name, said in purchase(one).items() if name != "order_id"} for one in lines],
        "total": _sum(lines),
    }


def _product(lines: list[Register]) -> dict[str, object]:
    return {
        "product_name": lines[0].product_name,
        "purchases": len(lines),
        "last_ordered_at": moment(lines[0].ordered_at),
        "spent": _sum(lines),
    }


def _sum(lines: list[Register]) -> str:
    amount = Decimal(0)
    for one in lines:
        amount = EXACT.add(amount, Decimal(one.price))
    return money(amount)


def _groups(
    known: list[Register],
    key: Callable[[Register], Hashable],
    shape: Callable[[list[Register]], dict[str, object]],
    after: Mark | None,
    limit: int,
) -> Page:
    groups: dict[Hashable, list[Register]] = {}
    for one in known:
        groups.setdefault(key(one), []).append(one)
    version = after.version if after else max((one.version for lines in groups.values() for one in lines), default=0)

    # What arrived since the first page must not move a group over the mark: it would be shown twice, or not at all.
    def rank_by(lines: list[Register]) -> tuple:
        return next((one.place for one in lines if one.version <= version), lines[0].place)

    ranked = sorted(groups.values(), key=rank_by, reverse=True)
    if after is not None:
        ranked = [lines for lines in ranked if rank_by(lines) < after.place]
    shown = ranked[:limit]
    rank = (after.rank if after else 0) + len(shown)
    mark = Mark(rank_by(shown[-1]), rank, version) if len(ranked) > limit else None
    return Page([shape(lines) for lines in shown], mark, min((lines[-1].ordered_at for lines in shown), default=None))
