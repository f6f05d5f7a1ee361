"""Pure functions that compare what the shop's database has of a user with what the table has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from domain.events import REMOVED, REPAIRED
from domain.purchases import Purchase
from domain.values import rfc3339

MISSING, EXTRA, CHANGED = KINDS = ("missing", "extra", "changed")


class PurchaseDifference(NamedTuple):
    """A purchase of which the database (`row`) and the table (`register`) do not say the same.

    It is missing in the table, extra there, or changed. A register that is not live is a removed purchase's.
    """

    kind: str
    user_id: str
    row: Purchase | None
    purchase: Purchase | None

    @property
    def identity(self) -> tuple[str | int, str]:
        """Order id and product name."""
        return (self.row or self.purchase).identity

    def to_dict(self) -> dict[str, object]:
        """The same for people and programs."""
        order_id, product_name = self.identity
        return {
            "kind": self.kind, "user_id": self.user_id, "order_id": str(order_id), "product_name": product_name,
            "database": compared_fields(self.row), "table": compared_fields(self.purchase),
        }  # fmt: skip


def find_differences(
    user_id: str, rows: Iterable[Purchase], purchases: Iterable[Purchase], horizon: int | None
) -> list[PurchaseDifference]:
    """All differences of one user; a row ordered before `horizon` (microseconds) that the table lacks is none.

    Where the database has a purchase in several rows, it is enough that one of them is as the table says.
    """
    wanted: dict[tuple, list[Purchase]] = {}
    for row in rows:
        wanted.setdefault(row.identity, []).append(row)
    found = []
    for one in purchases:
        same = wanted.pop(one.identity, [])
        if one.live and not same:
            found.append(PurchaseDifference(EXTRA, user_id, None, one))
        elif same and not one.live:
            found.append(PurchaseDifference(MISSING, user_id, same[-1], one))
        elif same and all(compared_fields(one) != compared_fields(row) for row in same):
            found.append(PurchaseDifference(CHANGED, user_id, same[-1], one))
    for same in wanted.values():
        if horizon is None or same[-1].ordered_at >= horizon:
            found.append(PurchaseDifference(MISSING, user_id, same[-1], None))
    return found


def is_unchanged(difference: PurchaseDifference, before: Iterable[Purchase]) -> bool:
    """Whether the table had the same of the purchase before the database was read as it had after it.

    If so, and if meanwhile all was applied that was committed up to then, then the stream does not know better.
    """
    return next((one for one in before if one.identity == difference.identity), None) == difference.purchase


def build_repair(difference: PurchaseDifference, version: int) -> tuple[str, int, bytes]:
    """Type, version and data of the event that makes the table say what the database says.

    It takes the version that the table has, and `version` where it has none: a change that is still on its way is
    newer than both, and wins.
    """
    known = difference.row or difference.purchase
    data = {
        "user_id": difference.user_id, "order_id": known.order_id,
        "product_name": known.product_name, "price": known.price,
        "ordered_at": rfc3339(known.ordered_at), "payment_method": known.payment_method, "category": known.category,
    }  # fmt: skip
    kind = REMOVED if difference.row is None else REPAIRED
    return kind, difference.purchase.version if difference.purchase else version, msgspec.json.encode(data)


def compared_fields(one: Purchase | None) -> dict[str, str | None] | None:
    """Return the compared fields of a purchase as text; None for a missing or a removed purchase."""
    if one is None or not one.live:
        return None
    return {
        "price": one.price, "ordered_at": rfc3339(one.ordered_at), "payment_method": one.payment_method,
        "category": one.category,
    }  # fmt: skip
