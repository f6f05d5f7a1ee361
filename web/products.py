"""How a product sells: GET /v1/products/{product_name}, and its newest purchases."""

from __future__ import annotations

from contextlib import suppress

from aiohttp.web import Request, Response

from app.core import settings
from chunks import ClosedPartition
from domain.product_history import HistoryPosition
from domain.values import DAY_US, HOUR_US, money, rfc3339
from tables import by_product, similar
from web import schemas
from web.http import cursor, parameters
from web.http.conditional import json_response
from web.http.parameters import CURSOR, LIMIT
from web.http.problems import Problem
from web.http.routes import Route
from web.problem_types import QUERY, ROUTED
from web.recommendations import brief, owned
from web.resource_names import PRODUCT, read_product_name
from web.routing import routed
from web.similar import switched_on

DEFAULT_LIMIT = 20


@Route(
    "/v1/products/{product_name}",
    "Number of purchases and revenue of a product",
    response=schemas.ProductSales,
    headers=("ETag",),
    parameters=(PRODUCT,),
    problems=("invalid-product-name", "unknown-parameter", "unknown-product", *ROUTED),
)
def get_product_sales(context: object, request: Request) -> Response:
    """Number of purchases and revenue of one product, and its purchases over time."""
    parameters.require_known(request)
    name = read_product_name(request, 3)
    return routed(request, by_product.by_product, name.encode(), lambda partition: _totals(request, name, partition))


@Route(
    "/v1/products/{product_name}/purchases",
    "The newest purchases of a product, without users",
    response=schemas.ProductPurchases,
    headers=("ETag", "Link"),
    parameters=(PRODUCT, LIMIT, CURSOR),
    problems=("invalid-product-name", "invalid-cursor", "unknown-product", "not-found", *QUERY, *ROUTED),
)
def get_product_purchases(context: object, request: Request) -> Response:
    """The newest purchases of one product: when, and at which price."""
    switched_on()
    parameters.require_known(request, "limit", "cursor")
    name = read_product_name(request, 3)
    limit = parameters.read_limit(request, DEFAULT_LIMIT)
    given = parameters.read_cursor(request)
    after = None if given is None else cursor.read(cursor.KEY, _bound_to(name), given, HistoryPosition)
    return routed(
        request, similar.similar, name.encode(), lambda partition: _purchases(request, name, partition, limit, after)
    )


def _totals(request: Request, name: str, partition: int) -> Response:
    totals = by_product.totals(name, partition)
    if totals is None:
        raise unknown_product()
    body = {"product_name": name, "purchases": totals.purchases, "revenue": money(totals.revenue)}
    if settings.similar:
        # Another worker may own that table's partition.
        with suppress(ClosedPartition):
            history, hour = similar.history(name, owned(similar.similar, name)), similar.now_hour()
            body["sales"] = {
                "by_hour": _counts(history.by_hour(hour), HOUR_US),
                "by_day": _counts(history.by_day(hour), DAY_US),
            }
    return json_response(request, body)


def _counts(counts: dict[int, int], length: int) -> list[dict[str, object]]:
    return [{"from": rfc3339(at * length), "purchases": count} for at, count in counts.items() if count > 0]


def _purchases(request: Request, name: str, partition: int, limit: int, after: HistoryPosition | None) -> Response:
    if brief(name) is None:
        raise unknown_product()
    page = similar.history(name, partition).page_after(limit, after)
    body = {
        "product_name": name,
        "purchases": [{"ordered_at": rfc3339(at), "price": price} for at, price in page.rows],
        "meta": {"limit": limit, "complete": page.is_complete},
    }
    link = None
    if page.next_position is not None:
        body["next_cursor"] = cursor.write(cursor.KEY, _bound_to(name), page.next_position)
        link = cursor.next_page_url(request, body["next_cursor"])
    return json_response(request, body, link=link)


def _bound_to(name: str) -> tuple:
    return ("purchases of", name)


def unknown_product() -> Problem:
    """The answer about a product that nobody ever bought."""
    return Problem(404, "unknown-product", "nobody bought a product of this name")
