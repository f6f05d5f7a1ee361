"""How a product sells: GET /v1/products/{product_name}, and its newest purchases."""

from __future__ import annotations

from contextlib import suppress

from aiohttp.web import Request, Response

from app.core import app, settings
from chunks import ClosedPartition
from domain.product_history import Mark
from domain.values import DAY, HOUR, money, rfc3339
from tables import by_product, similar
from web.http import cursor, parameters
from web.http.conditional import answer
from web.http.problems import Problem
from web.recommendations import brief, owned
from web.routing import routed
from web.similar import switched_on

DEFAULT_LIMIT = 20


@app.page("/v1/products/{product_name:[^/]*}")
def product(self, request: Request, product_name: str) -> Response:
    """Number of purchases and revenue of one product, and its purchases over time."""
    parameters.only(request)
    name = parameters.product_name(request, 3)
    return routed(request, by_product.by_product, name.encode(), lambda partition: _totals(request, name, partition))


@app.page("/v1/products/{product_name:[^/]*}/purchases")
def purchases(self, request: Request, product_name: str) -> Response:
    """The newest purchases of one product: when, and at which price."""
    switched_on()
    parameters.only(request, "limit", "cursor")
    name = parameters.product_name(request, 3)
    limit = parameters.limit(request, DEFAULT_LIMIT)
    given = parameters.cursor(request)
    after = None if given is None else cursor.read(cursor.KEY, _bound_to(name), given, Mark)
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
                "by_hour": _counts(history.by_hour(hour), HOUR),
                "by_day": _counts(history.by_day(hour), DAY),
            }
    return answer(request, body)


def _counts(counts: dict[int, int], length: int) -> list[dict[str, object]]:
    return [{"from": rfc3339(at * length), "purchases": count} for at, count in counts.items() if count > 0]


def _purchases(request: Request, name: str, partition: int, limit: int, after: Mark | None) -> Response:
    if brief(name) is None:
        raise unknown_product()
    page = similar.history(name, partition).shown(limit, after)
    body = {
        "product_name": name,
        "purchases": [{"ordered_at": rfc3339(at), "price": price} for at, price in page.rows],
        "meta": {"limit": limit, "complete": page.complete},
    }
    link = None
    if page.next is not None:
        body["next_cursor"] = cursor.write(cursor.KEY, _bound_to(name), page.next)
        link = cursor.next_page(request, body["next_cursor"])
    return answer(request, body, link=link)


def _bound_to(name: str) -> tuple:
    return ("purchases of", name)


def unknown_product() -> Problem:
    """The answer about a product that nobody ever bought."""
    return Problem(404, "unknown-product", "nobody bought a product of this name")
