"""The rows of all pages together, as JSON, are what brute force makes of the purchases."""

from __future__ import annotations

from decimal import Decimal

import msgspec
from hypothesis import given

from domain.pages import PagePosition
from domain.purchases import Purchase
from domain.values import rfc3339
from tests.kit.histories import PRODUCTS, bought, histories, limits, newest_first
from web.purchase_query import PurchaseQuery
from web.purchase_rows import build_content

ROWS = {None: "purchases", "order": "orders", "product": "products"}


def walk(known: list[Purchase], limit: int, group_by: str | None = None) -> list[list[dict]]:
    """The rows of each page, as JSON says them."""
    pages: list[list[dict]] = []
    after: PagePosition | None = None
    while True:
        query = PurchaseQuery(limit, group_by=group_by)
        content, page = build_content("ann", query, after, newest_first(known))
        decoded = msgspec.json.decode(msgspec.json.encode(content))
        assert decoded.keys() == {"user_id", ROWS[group_by]}
        pages.append(decoded[ROWS[group_by]])
        if page.next_position is None:
            return pages
        after = page.next_position


def rows(pages: list[list[dict]]) -> list[dict]:
    """The rows of all pages."""
    return [row for page in pages for row in page]


@given(histories, limits)
def test_pages_of_any_size_together_are_the_whole_list(known, limit):
    pages = walk(known, limit)
    assert rows(pages) == [
        {
            "order_id": str(one.order_id), "product_name": one.product_name, "price": one.price,
            "ordered_at": rfc3339(one.ordered_at), "payment_method": one.payment_method, "category": one.category,
            "position": number,
        }
        for number, one in enumerate(newest_first(known), 1)
    ]  # fmt: skip
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert not known or pages[-1], "the last page is never empty"


@given(histories, limits)
def test_orders_are_what_grouping_by_hand_makes_of_them(known, limit):
    ids = list(dict.fromkeys(one.order_id for one in newest_first(known)))
    truth = []
    for order_id in ids:
        lines = [one for one in newest_first(known) if one.order_id == order_id]
        truth.append(
            (str(order_id), rfc3339(lines[0].ordered_at), lines[0].payment_method,
             [one.product_name for one in lines], sum(Decimal(one.price) for one in lines))
        )  # fmt: skip
    found = rows(walk(known, limit, "order"))
    assert truth == [
        (row["order_id"], row["ordered_at"], row["payment_method"],
         [item["product_name"] for item in row["items"]], Decimal(row["total"]))
        for row in found
    ]  # fmt: skip


@given(histories, limits)
def test_products_are_what_grouping_by_hand_makes_of_them(known, limit):
    truth = {}
    for one in newest_first(known):
        count, last, spent = truth.get(one.product_name, (0, rfc3339(one.ordered_at), Decimal(0)))
        truth[one.product_name] = (count + 1, last, spent + Decimal(one.price))
    found = rows(walk(known, limit, "product"))
    assert list(truth.items()) == [
        (row["product_name"], (row["purchases"], row["last_ordered_at"], Decimal(row["spent"]))) for row in found
    ]


def test_the_total_of_an_order_is_exact():
    dear = [bought("o", product, price="999999999999999999.9999999999") for product in PRODUCTS]
    assert rows(walk(dear, 5, "order"))[0]["total"] == "2999999999999999999.9999999997"
