"""The page of a product: its sales, similar products and its newest purchases."""

from __future__ import annotations

import time
from typing import NamedTuple

import msgspec
from aiohttp.web import Request, Response

from chunks import ClosedPartition
from domain.product_history import ProductHistory
from domain.values import DAY_US, money, rfc3339
from web.context import WebContext
from web.http import parameters
from web.http.handlers import ViewResult
from web.http.routes import HTML, Parameter, Route
from web.pages import page
from web.problem_types import ROUTED
from web.resource_names import PRODUCT, read_product_name, read_query_product_name
from web.schemas import Suggestion
from web.similar import unknown_product

#: Rows of each list.
ROWS = 10
#: Days and height of the chart.
CHART_DAYS, CHART_HEIGHT = 30, 56


class Bar(NamedTuple):
    """One day in the chart of sales; `column` counts from 0."""

    column: int
    day: str
    purchases: int
    height: float


class ProductDetails(NamedTuple):
    """The sections that need the agent similar: chart, newest purchases and similar products."""

    bars: list[Bar]
    purchases: list[tuple[str, str]]
    similar: list[Suggestion]


@Route(
    "/products/{product_name}",
    "The page of a product",
    media=(HTML,),
    parameters=(PRODUCT,),
    problems=("invalid-product-name", "unknown-parameter", "unknown-product", *ROUTED),
    tags=("pages",),
)
def get_product_page(context: WebContext, request: Request) -> ViewResult:
    """Show the page of a product."""
    parameters.require_known(request)
    return _respond(context, request, read_product_name(request, 2))


@Route(
    "/products",
    "The page of a product whose name a path cannot contain (`.` and `..`)",
    media=(HTML,),
    parameters=(Parameter("name", "The product's name", PRODUCT.schema, example="Phone"),),
    problems=("invalid-product-name", "unknown-parameter", "unknown-product", *ROUTED),
    tags=("pages",),
)
def get_product_page_by_query(context: WebContext, request: Request) -> ViewResult:
    """Show the page of a product with any name.

    A client removes the segments "." and ".." from a path.
    """
    parameters.require_known(request, "name")
    return _respond(context, request, read_query_product_name(request, "name"))


def _respond(context: WebContext, request: Request, name: str) -> ViewResult:
    async def read_table(partition: int) -> Response:
        totals = context.by_product.totals(name, partition)
        if totals is None:
            raise unknown_product()
        details = await _read_details(context, request, name, partition)
        bars, purchases, suggestions = details or ProductDetails([], [], [])
        return page(
            "product.html", name=name, totals=totals, revenue=money(totals.revenue), bars=bars, purchases=purchases,
            similar=msgspec.to_builtins(suggestions), counted=details is not None, days=CHART_DAYS,
        )  # fmt: skip

    return context.router.respond_later(request, "by_product", name.encode(), read_table)


async def _read_details(context: WebContext, request: Request, name: str, partition: int) -> ProductDetails | None:
    """Return what the agent similar counts for a product; None if this process does not have it."""
    if not context.settings.similar:
        return None
    try:
        history = context.similar.history(name, partition)
    except ClosedPartition:
        return None
    purchases = [(rfc3339(ordered_at), price) for ordered_at, price in history.page_after(ROWS).rows]
    is_complete = context.is_sales_complete()
    similar = (await context.recommender.similar_products(request, name, ROWS)).rows if is_complete else []
    return ProductDetails(chart_bars(history, int(time.time() * 1e6) // DAY_US), purchases, similar)


def chart_bars(history: ProductHistory, today: int) -> list[Bar]:
    """Return one bar for each day until `today` (days since 1970); none without purchases."""
    days = range(today - CHART_DAYS + 1, today + 1)
    counts = [max(0, history.days.get(day, 0)) for day in days]
    maximum = max(counts)
    if not maximum:
        return []
    return [
        Bar(column, rfc3339(day * DAY_US)[:10], count, round(CHART_HEIGHT * count / maximum, 1))
        for column, (day, count) in enumerate(zip(days, counts, strict=True))
    ]
