"""The oracle: a brute-force fold over the whole topic, which shares nothing with the code it judges."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from tests.crash import log


class ExpectedPurchase(NamedTuple):
    """One live purchase."""

    order_id: str
    product_name: str
    price: str
    ordered_at: datetime
    payment_method: str | None

    @property
    def place(self) -> tuple:
        """ORDER BY ordered_at, order_id, product_name, by bytes."""
        return (self.ordered_at, self.order_id.encode(), self.product_name.encode())


@dataclass
class Truth:
    """What the tables must say."""

    #: User -> all live purchases, newest first.
    purchases: dict[str, list[ExpectedPurchase]] = field(default_factory=dict)
    #: User, order and product, of removed ones too -> its version, and where that was said first.
    said: dict[tuple[str, str, str], tuple[int, int]] = field(default_factory=dict)
    #: Product -> number of live purchases, and the sum of their prices.
    products: dict[str, tuple[int, Decimal]] = field(default_factory=dict)
    #: Where the topic ends, by partition.
    ends: list[int] = field(default_factory=list)


def moment(text: str) -> datetime:
    """RFC 3339 text as a moment."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def truth(kafka: str, topic: str, partitions: int) -> Truth:
    """Read everything, keep the newest version of each purchase, and look what is left."""
    newest: dict[tuple[str, str, str], tuple[int, str, dict]] = {}
    said: dict[tuple[str, str, str], tuple[int, int]] = {}
    for partition in range(partitions):
        for offset, _, value in log.records(kafka, topic, partition):
            event = json.loads(value)
            data = event["data"]
            identity = (data["user_id"], data["order_id"], data["product_name"])
            if identity not in newest or data["version"] > newest[identity][0]:
                newest[identity] = (data["version"], event["type"], data)
                said[identity] = (data["version"], offset)
    found = Truth(said=said, ends=log.ends(kafka, topic, partitions))
    for (user, order, product), (_, kind, data) in newest.items():
        mine = found.purchases.setdefault(user, [])
        count, revenue = found.products.get(product, (0, Decimal(0)))
        if kind != "order.removed":
            ordered_at, payment_method = moment(data["ordered_at"]), data["payment_method"]
            mine.append(ExpectedPurchase(order, product, data["price"], ordered_at, payment_method))
            count, revenue = count + 1, revenue + Decimal(data["price"])
        found.products[product] = (count, revenue)
    for mine in found.purchases.values():
        mine.sort(key=lambda one: one.place, reverse=True)
    return found
