"""What a user bought lately, for programs: GET /v1/users/{user_id}/purchases."""

from __future__ import annotations

import msgspec
from aiohttp.web import Request, Response

from app.core import app, settings
from app.folds import Register, rfc3339
from tables import by_user
from web import parameters
from web.routing import routed


@app.page("/v1/users/{user_id:[^/]*}/purchases")
async def purchases(self, request: Request, user_id: str) -> Response:
    """The user's newest purchases, newest first; a user never seen has none."""
    parameters.only(request, "limit")
    user = parameters.user_id(request, 3)
    limit = parameters.limit(request, settings.recent_limit)
    return await routed(request, by_user.by_user, user.encode(), lambda partition: _answer(user, limit, partition))


def _answer(user: str, limit: int, partition: int) -> Response:
    shown, fresh = by_user.shown(user, partition, limit), by_user.freshness(partition)
    body = {
        "user_id": user,
        "purchases": [shape(register) for register in shown],
        "meta": {
            "limit": limit,
            "complete": fresh.horizon is None
            or (len(shown) == limit and all(one.ordered_at >= fresh.horizon for one in shown)),
            "as_of": None if fresh.as_of is None else rfc3339(fresh.as_of),
            "lag_ms": fresh.lag_ms,
            "guarantee": fresh.guarantee,
            "role": "active",
            "worker": str(app.conf.canonical_url).rstrip("/"),
        },
    }
    return Response(
        body=msgspec.json.encode(body),
        content_type="application/json",
        charset="utf-8",
        headers={"Cache-Control": "private, no-cache"},
    )


def shape(register: Register) -> dict[str, object]:
    """A purchase as programs and pages see it: order id and price as text, time in RFC 3339."""
    return {
        "order_id": str(register.order_id),
        "product_name": register.product_name,
        "price": register.price,
        "ordered_at": rfc3339(register.ordered_at),
        "payment_method": register.payment_method,
        "category": register.category,
    }
