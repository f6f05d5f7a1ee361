"""Histories of purchases for property tests: few distinct values, so that ties are frequent."""

from __future__ import annotations

from hypothesis import strategies as st

from domain.purchases import Purchase

ORDER_IDS = [2, 10, "10", "9", "é", "z"]
PRODUCTS = ["tea", "Tea", "té"]

moments = st.integers(0, 4)


def bought(
    order_id: str | int = "o", product: str = "tea", at: int = 0, version: int = 1, price: str = "1.00",
    paid: str | None = None, live: bool = True,
) -> Purchase:  # fmt: skip
    return Purchase(order_id, product, version, live, at, price, paid, None)


histories = st.dictionaries(
    st.tuples(st.sampled_from(ORDER_IDS), st.sampled_from(PRODUCTS)),
    st.tuples(moments, st.sampled_from(["1.00", "2.50", "0.0001"]), st.sampled_from(["card", None])),
    max_size=18,
).map(lambda found: [bought(*one, at, version, price, paid)
                     for version, (one, (at, price, paid)) in enumerate(found.items())])  # fmt: skip
limits = st.integers(1, 5)


def newest_first(known: list[Purchase]) -> list[Purchase]:
    return sorted(known, key=lambda one: one.sort_key, reverse=True)
