"""Comparison of the purchases of a user in the shop's database with those in the table by_user."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from domain.events import REMOVED, REPAIRED
from domain.prices import is_same_amount
from domain.purchases import Purchase
from domain.values import rfc3339

MISSING, EXTRA, CHANGED = KINDS = ("missing", "extra", "changed")


class PurchaseDifference(NamedTuple):
    """A purchase that differs between the database (`row`) and the table (`purchase`).

    `kind`: it is MISSING in the table, EXTRA in the table, or CHANGED. At least one of `row` and
    `purchase` is set. If `purchase` is not live, the table contains its removal.
    """

    kind: str
    user_id: str
    row: Purchase | None
    purchase: Purchase | None

    @property
    def expected(self) -> Purchase:
        """The row of the database, or, if the purchase is extra, the purchase in the table."""
        expected = self.row or self.purchase
        assert expected is not None, "a difference without row and purchase"
        return expected

    @property
    def identity(self) -> tuple[str | int, str]:
        """The order id and the product name."""
        return self.expected.identity

    def to_dict(self) -> dict[str, object]:
        """Return the fields for the output of a command."""
        order_id, product_name = self.identity
        return {
            "kind": self.kind, "user_id": self.user_id, "order_id": str(order_id), "product_name": product_name,
            "database": compared_fields(self.row), "table": compared_fields(self.purchase),
        }  # fmt: skip


def find_differences(
    user_id: str, rows: Iterable[Purchase], purchases: Iterable[Purchase], horizon: int | None
) -> list[PurchaseDifference]:
    """Return all differences between the rows and the purchases of one user.

    A row that was ordered before `horizon` (microseconds) may be missing in the table. If the
    database has several rows of one purchase, one row that equals the table is sufficient.
    """
    rows_by_identity: dict[tuple[str | int, str], list[Purchase]] = {}
    for row in rows:
        rows_by_identity.setdefault(row.identity, []).append(row)
    differences = []
    for purchase in purchases:
        candidates = rows_by_identity.pop(purchase.identity, [])
        if purchase.live and not candidates:
            differences.append(PurchaseDifference(EXTRA, user_id, None, purchase))
        elif candidates and not purchase.live:
            differences.append(PurchaseDifference(MISSING, user_id, candidates[-1], purchase))
        elif candidates and not any(is_same_content(purchase, row) for row in candidates):
            differences.append(PurchaseDifference(CHANGED, user_id, candidates[-1], purchase))
    for candidates in rows_by_identity.values():
        if horizon is None or candidates[-1].ordered_at >= horizon:
            differences.append(PurchaseDifference(MISSING, user_id, candidates[-1], None))
    return differences


def count_optional(rows: Iterable[Purchase], purchases: Iterable[Purchase], horizon: int | None) -> int:
    """Return the number of purchases that `find_differences` does not report because of the horizon."""
    if horizon is None:
        return 0
    present = {purchase.identity for purchase in purchases}
    newest = {row.identity: row for row in rows}
    return sum(identity not in present and row.ordered_at < horizon for identity, row in newest.items())


def is_unchanged(difference: PurchaseDifference, before: Iterable[Purchase]) -> bool:
    """Return True if the table had the same purchase before and after the database was read.

    `before` are the purchases in the table before. If the worker has also applied all events that
    were committed by then, no event that explains the difference is on its way.
    """
    previous = next((purchase for purchase in before if purchase.identity == difference.identity), None)
    return previous == difference.purchase


def build_repair(difference: PurchaseDifference, version: int) -> tuple[str, int, bytes]:
    """Return type, version and data of the event that makes the table equal to the database.

    The version is that of the table, or `version` if the table does not contain the purchase: a
    change that is still on its way is newer than both, and wins.
    """
    expected = difference.expected
    data = {
        "user_id": difference.user_id, "order_id": expected.order_id,
        "product_name": expected.product_name, "price": expected.price,
        "ordered_at": rfc3339(expected.ordered_at), "payment_method": expected.payment_method,
        "category": expected.category,
    }  # fmt: skip
    event_type = REMOVED if difference.row is None else REPAIRED
    return event_type, difference.purchase.version if difference.purchase else version, msgspec.json.encode(data)


def is_same_content(purchase: Purchase, row: Purchase) -> bool:
    """Return True if a live purchase has the values of a row; the value of a price counts."""
    return (
        purchase.ordered_at == row.ordered_at
        and is_same_amount(purchase.price, row.price)
        and purchase.payment_method == row.payment_method
        and purchase.category == row.category
    )


def compared_fields(purchase: Purchase | None) -> dict[str, str | None] | None:
    """Return the compared fields of a purchase as text; None for a missing or removed purchase."""
    if purchase is None or not purchase.live:
        return None
    return {
        "price": purchase.price, "ordered_at": rfc3339(purchase.ordered_at),
        "payment_method": purchase.payment_method, "category": purchase.category,
    }  # fmt: skip
