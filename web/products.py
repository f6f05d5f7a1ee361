"""The sales of a product: GET /v1/products/{product_name}, and its newest purchases."""

from __future__ import annotations

from contextlib import suppress

from aiohttp.web import Request

from chunks import ClosedPartition
from domain.product_history import HistoryPosition
from domain.values import DAY_US, HOUR_US, money, utc_datetime
from tables.similar import current_hour
from web.context import WebContext
from web.http import cursor, parameters
from web.http.conditional import json_response
from web.http.handlers import AnyResponse, ViewResult
from web.http.parameters import CURSOR, LIMIT
from web.http.routes import Route
from web.problem_types import QUERY, ROUTED
from web.resource_names import PRODUCT, read_product_name
from web.schemas import (
    PeriodSales,
    ProductPurchase,
    ProductPurchases,
    ProductPurchasesMeta,
    ProductTotals,
    SalesHistory,
)
from web.similar import require_similar, unknown_product

DEFAULT_LIMIT = 20


@Route(
    "/v1/products/{product_name}",
    "Number of purchases and revenue of a product",
    response=ProductTotals,
    headers=("ETag",),
    parameters=(PRODUCT,),
    problems=("invalid-product-name", "unknown-parameter", "unknown-product", *ROUTED),
)
def get_product_sales(context: WebContext, request: Request) -> ViewResult:
    """Return the number of purchases and the revenue of a product, and its purchases over time."""
    parameters.require_known(request)
    name = read_product_name(request, 3)

    def read_table(partition: int) -> ProductTotals:
        totals = context.by_product.totals(name, partition)
        if totals is None:
            raise unknown_product()
        sales = ProductTotals(name, totals.purchases, money(totals.revenue))
        if context.settings.similar:
            # Another worker may own the partition of the other table.
            with suppress(ClosedPartition):
                sales.sales = _read_sales_history(context, name, partition)
        return sales

    return context.router.respond(request, "by_product", name.encode(), read_table)


def _read_sales_history(context: WebContext, name: str, partition: int) -> SalesHistory:
    history, hour = context.similar.history(name, partition), current_hour()
    return SalesHistory(_periods(history.by_hour(hour), HOUR_US), _periods(history.by_day(hour), DAY_US))


def _periods(counts: dict[int, int], length_us: int) -> list[PeriodSales]:
    return [PeriodSales(utc_datetime(number * length_us), count) for number, count in counts.items() if count > 0]


@Route(
    "/v1/products/{product_name}/purchases",
    "The newest purchases of a product, without users",
    response=ProductPurchases,
    headers=("ETag", "Link"),
    parameters=(PRODUCT, LIMIT, CURSOR),
    problems=("invalid-product-name", "invalid-cursor", "unknown-product", "not-found", *QUERY, *ROUTED),
)
def get_product_purchases(context: WebContext, request: Request) -> ViewResult:
    """Return times and prices of the newest purchases of a product."""
    require_similar(context)
    parameters.require_known(request, "limit", "cursor")
    name = read_product_name(request, 3)
    limit = parameters.read_limit(request, DEFAULT_LIMIT)
    cursor_text = parameters.read_cursor(request)
    cursor_key, bound_to = cursor.signing_key(context.settings), ("purchases of", name)
    after = None if cursor_text is None else cursor.read(cursor_key, bound_to, cursor_text, HistoryPosition)

    def read_table(partition: int) -> AnyResponse:
        if not context.similar.has_sales(name, partition):
            raise unknown_product()
        page = context.similar.history(name, partition).page_after(limit, after)
        content = ProductPurchases(
            name,
            [ProductPurchase(utc_datetime(ordered_at), price) for ordered_at, price in page.rows],
            ProductPurchasesMeta(limit, page.is_complete),
        )
        if page.next_position is None:
            return json_response(request, content)
        content.next_cursor = cursor.write(cursor_key, bound_to, page.next_position)
        return json_response(request, content, link=cursor.next_page_url(request, content.next_cursor))

    return context.router.respond(request, "similar", name.encode(), read_table)
