"""What goes with a product, what a user may like, what is popular: lists of products, each with its reason."""

from __future__ import annotations

from aiohttp.web import Request, Response

from app.core import app, settings
from tables import by_user
from tables import similar as table
from web.http import parameters
from web.http.conditional import answer
from web.http.problems import Answered, Problem
from web.recommendations import DEFAULT_LIMIT, LONGEST, WINDOWS, popular, purchased, recommend, similar_to
from web.routing import demand_kept, routed


@app.page("/v1/products/popular")
def bestsellers(self, request: Request) -> Answered:
    """What most users bought lately."""
    switched_on()
    parameters.only(request, "window", "limit")
    window = parameters.choice(request, "window", *WINDOWS) or LONGEST
    limit = parameters.limit(request, DEFAULT_LIMIT)

    async def told(_partition: int) -> Response:
        return answer(request, {"window": window, "products": await popular(window, limit), **_meta(limit)})

    return routed(request, table.similar, b"", told)


@app.page("/v1/products/{product_name:[^/]*}/similar")
def alike(self, request: Request, product_name: str) -> Answered:
    """What the users who bought a product also bought."""
    switched_on()
    parameters.only(request, "limit", "intent", "for_user", "fallback")
    name = parameters.product_name(request, 3)
    limit = parameters.limit(request, DEFAULT_LIMIT)
    user = parameters.query_user_id(request, "for_user")
    fallback = parameters.choice(request, "fallback", "popular", "none")
    complementary = parameters.choice(request, "intent", "related", "complementary") == "complementary"

    async def told(_partition: int) -> Response:
        rows = await similar_to(name, limit, for_user=user, complementary=complementary, fallback=fallback != "none")
        if rows is None and fallback == "popular":
            rows = await popular(LONGEST, limit, {name, *purchased(user)} if user else {name})
        if rows is None:
            raise Problem(404, "unknown-product", "nobody bought a product of this name")
        return answer(request, {"product_name": name, "similar": rows, **_meta(limit)})

    return routed(request, table.similar, name.encode(), told)


@app.page("/v1/users/{user_id:[^/]*}/recommendations")
def recommendations(self, request: Request, user_id: str) -> Answered:
    """What a user may like; a user never seen is shown what is popular."""
    switched_on()
    parameters.only(request, "limit", "exclude")
    user = parameters.user_id(request, 3)
    limit = parameters.limit(request, DEFAULT_LIMIT)
    new_only = parameters.choice(request, "exclude", "purchased", "none") != "none"

    async def told(_partition: int) -> Response:
        rows = await recommend(user, limit, exclude_purchased=new_only)
        return answer(request, {"user_id": user, "recommendations": rows, **_meta(limit)})

    return routed(request, by_user.by_user, user.encode(), told)


def switched_on() -> None:
    """Raise Problem where nothing is counted together: 404 not-found nowhere, 421 agent-elsewhere not here."""
    if not settings.similar:
        raise Problem(404, "not-found", "this is switched off: LATELY_SIMILAR is 0")
    demand_kept(table.similar)


def _meta(limit: int) -> dict[str, object]:
    return {"meta": {"limit": limit}}
