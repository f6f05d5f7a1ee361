"""The rows of a response about purchases: purchases, orders or products."""

from __future__ import annotations

from domain import pages
from domain.pages import PagePosition, PurchaseGroup, PurchasesPage, sum_prices
from domain.purchases import Purchase
from domain.values import utc_datetime
from web.purchase_query import PurchaseQuery
from web.schemas import OrderGroup, OrderItem, ProductGroup, PurchasesContent, RankedPurchase

AnyPage = PurchasesPage[Purchase] | PurchasesPage[PurchaseGroup]


def build_content(
    user: str, query: PurchaseQuery, after: PagePosition | None, purchases: list[Purchase]
) -> tuple[PurchasesContent, AnyPage]:
    """Return the page that begins after a position, and its content without the next cursor.

    `purchases` are sorted, newest first: without grouping at least `limit` + 1 after the position,
    else all of them.
    """
    if query.group_by is None:
        page = pages.paginate_purchases(purchases, after, query.limit)
        rank = 0 if after is None else after.rank
        return PurchasesContent(user, purchases=[_ranked(row, n) for n, row in enumerate(page.rows, rank + 1)]), page
    if query.group_by == "order":
        groups = pages.paginate_orders(purchases, after, query.limit)
        return PurchasesContent(user, orders=[_order(group) for group in groups.rows]), groups
    groups = pages.paginate_products(purchases, after, query.limit)
    return PurchasesContent(user, products=[_product(group) for group in groups.rows]), groups


def _ranked(purchase: Purchase, position: int) -> RankedPurchase:
    return RankedPurchase(
        str(purchase.order_id), purchase.product_name, purchase.price, utc_datetime(purchase.ordered_at),
        purchase.payment_method, purchase.category, position,
    )  # fmt: skip


def _order(group: PurchaseGroup) -> OrderGroup:
    newest = group[0]
    return OrderGroup(
        str(newest.order_id),
        utc_datetime(newest.ordered_at),
        newest.payment_method,
        [_item(purchase) for purchase in group],
        sum_prices(group),
    )


def _item(purchase: Purchase) -> OrderItem:
    return OrderItem(
        purchase.product_name, purchase.price, utc_datetime(purchase.ordered_at), purchase.payment_method,
        purchase.category,
    )  # fmt: skip


def _product(group: PurchaseGroup) -> ProductGroup:
    return ProductGroup(
        group[0].product_name, len(group), utc_datetime(group[0].ordered_at),
        sum_prices(group),
    )  # fmt: skip
