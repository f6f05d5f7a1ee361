"""How a product sells: GET /v1/products/{product_name}."""

from __future__ import annotations

import msgspec
from aiohttp.web import Request, Response

from app.core import app
from app.folds import money
from tables import by_product
from web import parameters
from web.errors import Problem
from web.routing import routed


@app.page("/v1/products/{product_name:[^/]*}")
async def product(self, request: Request, product_name: str) -> Response:
    """Number of purchases and revenue of one product."""
    parameters.only(request)
    name = parameters.product_name(request, 3)
    return await routed(request, by_product.by_product, name.encode(), lambda partition: _answer(name, partition))


def _answer(name: str, partition: int) -> Response:
    totals = by_product.totals(name, partition)
    if totals is None:
        raise Problem(404, "unknown-product", "nobody bought a product of this name")
    body = {"product_name": name, "purchases": totals.purchases, "revenue": money(totals.revenue)}
    return Response(body=msgspec.json.encode(body), content_type="application/json", charset="utf-8")
