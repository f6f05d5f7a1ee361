"""The page of a product: how it sells, what goes with it, when it was bought lately."""

from __future__ import annotations

import time

from aiohttp.web import Request, Response

from app.core import settings
from chunks import ClosedPartition
from domain.product_history import ProductHistory
from domain.values import DAY_US, money, rfc3339
from tables import by_product, similar
from web.http import parameters
from web.http.problems import HandlerResult
from web.http.routes import HTML, Parameter, Route
from web.pages import page
from web.problem_types import ROUTED
from web.products import unknown_product
from web.recommendations import owned, similar_to
from web.resource_names import PRODUCT, read_product_name, read_query_product_name
from web.routing import routed

#: What the page shows: rows of each list, days of the chart and its height.
ROWS, DAYS, HEIGHT = 10, 30, 56


@Route(
    "/products/{product_name}",
    "The page of a product",
    media=(HTML,),
    parameters=(PRODUCT,),
    problems=("invalid-product-name", "unknown-parameter", "unknown-product", *ROUTED),
    tags=("pages",),
)
def get_product_page(context: object, request: Request) -> HandlerResult:
    """The page of one product."""
    parameters.require_known(request)
    return _routed(request, read_product_name(request, 2))


@Route(
    "/products",
    "The page of a product whose name a path cannot contain (`.` and `..`)",
    media=(HTML,),
    parameters=(Parameter("name", "The product's name", PRODUCT.schema, example="Phone"),),
    problems=("invalid-product-name", "unknown-parameter", "unknown-product", *ROUTED),
    tags=("pages",),
)
def get_product_page_by_query(context: object, request: Request) -> HandlerResult:
    """The same for any name: "." and ".." mean a folder to whoever makes a path of them."""
    parameters.require_known(request, "name")
    return _routed(request, read_query_product_name(request, "name"))


def _routed(request: Request, name: str) -> HandlerResult:
    return routed(request, by_product.by_product, name.encode(), lambda partition: _answer(name, partition))


async def _answer(name: str, partition: int) -> Response:
    totals = by_product.totals(name, partition)
    if totals is None:
        raise unknown_product()
    beside = await _beside(name)
    bars, purchases, rows = beside or ([], [], [])
    return page(
        "product.html", name=name, totals=totals, revenue=money(totals.revenue), bars=bars, purchases=purchases,
        similar=rows, counted=beside is not None, days=DAYS,
    )  # fmt: skip


async def _beside(name: str) -> tuple[list, list, list] | None:
    """Chart, newest purchases and similar products; None where these are not counted, or not here."""
    if not settings.similar:
        return None
    try:
        history = similar.history(name, owned(similar.similar, name))
        newest = [(rfc3339(ordered_at), price) for ordered_at, price in history.page_after(ROWS).rows]
        return bars(history, int(time.time() * 1e6) // DAY_US), newest, await similar_to(name, ROWS) or []
    except ClosedPartition:
        return None


def bars(history: ProductHistory, today: int) -> list[dict[str, object]]:
    """The last days up to `today` (days since 1970), each with its purchases and the height of its bar.

    Days without a purchase have height 0; empty where no day has any.
    """
    counts = [max(0, history.days.get(day, 0)) for day in range(today - DAYS + 1, today + 1)]
    most = max(counts)
    return [
        {
            "place": place,
            "day": rfc3339((today - DAYS + 1 + place) * DAY_US)[:10],
            "purchases": count,
            "height": round(HEIGHT * count / most, 1),
        }
        for place, count in enumerate(counts)
    ] if most else []  # fmt: skip
