"""Pure functions that compare what the shop's database has of a user with what the table has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from domain.events import REMOVED, REPAIRED
from domain.purchases import Register
from domain.values import rfc3339

MISSING, EXTRA, CHANGED = KINDS = ("missing", "extra", "changed")


class Difference(NamedTuple):
    """A purchase of which the database (`row`) and the table (`register`) do not say the same.

    It is missing in the table, extra there, or changed. A register that is not live is a removed purchase's.
    """

    kind: str
    user: str
    row: Register | None
    register: Register | None

    @property
    def identity(self) -> tuple[str | int, str]:
        """Order id and product name."""
        return (self.row or self.register).identity

    def shown(self) -> dict[str, object]:
        """The same for people and programs."""
        order_id, product_name = self.identity
        return {
            "kind": self.kind, "user_id": self.user, "order_id": str(order_id), "product_name": product_name,
            "database": _content(self.row), "table": _content(self.register),
        }  # fmt: skip


def differences(
    user: str, rows: Iterable[Register], registers: Iterable[Register], horizon: int | None
) -> list[Difference]:
    """All differences of one user; a row ordered before `horizon` (microseconds) that the table lacks is none.

    Where the database has a purchase in several rows, it is enough that one of them is as the table says.
    """
    wanted: dict[tuple, list[Register]] = {}
    for row in rows:
        wanted.setdefault(row.identity, []).append(row)
    found = []
    for one in registers:
        same = wanted.pop(one.identity, [])
        if one.live and not same:
            found.append(Difference(EXTRA, user, None, one))
        elif same and not one.live:
            found.append(Difference(MISSING, user, same[-1], one))
        elif same and all(_content(one) != _content(row) for row in same):
            found.append(Difference(CHANGED, user, same[-1], one))
    for same in wanted.values():
        if horizon is None or same[-1].ordered_at >= horizon:
            found.append(Difference(MISSING, user, same[-1], None))
    return found


def untouched(found: Difference, before: Iterable[Register]) -> bool:
    """Whether the table had the same of the purchase before the database was read as it had after it.

    If so, and if meanwhile all was applied that was committed up to then, then the stream does not know better.
    """
    return next((one for one in before if one.identity == found.identity), None) == found.register


def repair(found: Difference, version: int) -> tuple[str, int, bytes]:
    """Type, version and data of the event that makes the table say what the database says.

    It takes the version that the table has, and `version` where it has none: a change that is still on its way is
    newer than both, and wins.
    """
    known = found.row or found.register
    data = {
        "user_id": found.user, "order_id": known.order_id, "product_name": known.product_name, "price": known.price,
        "ordered_at": rfc3339(known.ordered_at), "payment_method": known.payment_method, "category": known.category,
    }  # fmt: skip
    kind = REMOVED if found.row is None else REPAIRED
    return kind, found.register.version if found.register else version, msgspec.json.encode(data)


def _content(one: Register | None) -> dict[str, object] | None:
    if one is None or not one.live:
        return None
    return {
        "price": one.price, "ordered_at": rfc3339(one.ordered_at), "payment_method": one.payment_method,
        "category": one.category,
    }  # fmt: skip
