"""What goes with a product, what a user may like, what is popular: lists of products, each with its reason."""

from __future__ import annotations

from aiohttp.web import Request, Response

from app.core import settings
from tables import by_user
from tables import similar as table
from web import schemas
from web.http import parameters
from web.http.conditional import json_response
from web.http.parameters import LIMIT, USER
from web.http.problems import HandlerResult, Problem
from web.http.routes import Parameter, Route
from web.problem_types import QUERY, ROUTED
from web.recommendations import DEFAULT_LIMIT, LONGEST, WINDOWS, popular, purchased, recommend, similar_to
from web.resource_names import PRODUCT, read_product_name
from web.routing import demand_kept, routed


@Route(
    "/v1/products/popular",
    "The products that most users bought",
    response=schemas.PopularProducts,
    headers=("ETag",),
    parameters=(
        Parameter("window", "The time window", {"type": "string", "enum": ["1h", "24h", "7d"]}, example="24h"),
        LIMIT,
    ),
    problems=(*QUERY, *ROUTED, "not-found"),
)
def get_popular_products(context: object, request: Request) -> HandlerResult:
    """What most users bought lately."""
    switched_on()
    parameters.require_known(request, "window", "limit")
    window = parameters.read_choice(request, "window", *WINDOWS) or LONGEST
    limit = parameters.read_limit(request, DEFAULT_LIMIT)

    async def told(_partition: int) -> Response:
        return json_response(request, {"window": window, "products": await popular(window, limit), **_meta(limit)})

    return routed(request, table.similar, b"", told)


@Route(
    "/v1/products/{product_name}/similar",
    "Products that were bought by the same users",
    response=schemas.SimilarProducts,
    headers=("ETag",),
    parameters=(
        PRODUCT,
        LIMIT,
        Parameter(
            "intent",
            "`complementary`: only products of other categories",
            {"type": "string", "enum": ["related", "complementary"]},
        ),
        Parameter("for_user", "Leave out the products that this user bought", USER.schema, example="ann"),
        Parameter(
            "fallback",
            "Fills the list if there are few similar products",
            {"type": "string", "enum": ["popular", "none"]},
        ),
    ),
    problems=("invalid-product-name", "invalid-user-id", "unknown-product", "not-found", *QUERY, *ROUTED),
)
def get_similar_products(context: object, request: Request) -> HandlerResult:
    """What the users who bought a product also bought."""
    switched_on()
    parameters.require_known(request, "limit", "intent", "for_user", "fallback")
    name = read_product_name(request, 3)
    limit = parameters.read_limit(request, DEFAULT_LIMIT)
    user = parameters.read_query_user_id(request, "for_user")
    fallback = parameters.read_choice(request, "fallback", "popular", "none")
    complementary = parameters.read_choice(request, "intent", "related", "complementary") == "complementary"

    async def told(_partition: int) -> Response:
        rows = await similar_to(name, limit, for_user=user, complementary=complementary, fallback=fallback != "none")
        if rows is None and fallback == "popular":
            rows = await popular(LONGEST, limit, {name, *purchased(user)} if user else {name})
        if rows is None:
            raise Problem(404, "unknown-product", "nobody bought a product of this name")
        return json_response(request, {"product_name": name, "similar": rows, **_meta(limit)})

    return routed(request, table.similar, name.encode(), told)


@Route(
    "/v1/users/{user_id}/recommendations",
    "Products that the user may like, each with its reason",
    response=schemas.Recommendations,
    headers=("ETag",),
    parameters=(
        USER,
        LIMIT,
        Parameter("exclude", "The products to leave out", {"type": "string", "enum": ["purchased", "none"]}),
    ),
    problems=("invalid-user-id", *QUERY, *ROUTED, "not-found"),
)
def get_recommendations(context: object, request: Request) -> HandlerResult:
    """What a user may like; a user never seen is shown what is popular."""
    switched_on()
    parameters.require_known(request, "limit", "exclude")
    user = parameters.read_user_id(request, 3)
    limit = parameters.read_limit(request, DEFAULT_LIMIT)
    new_only = parameters.read_choice(request, "exclude", "purchased", "none") != "none"

    async def told(_partition: int) -> Response:
        rows = await recommend(user, limit, exclude_purchased=new_only)
        return json_response(request, {"user_id": user, "recommendations": rows, **_meta(limit)})

    return routed(request, by_user.by_user, user.encode(), told)


def switched_on() -> None:
    """Raise Problem where nothing is counted together: 404 not-found nowhere, 421 agent-elsewhere not here."""
    if not settings.similar:
        raise Problem(404, "not-found", "this is switched off: LATELY_SIMILAR is 0")
    demand_kept(table.similar)


def _meta(limit: int) -> dict[str, object]:
    return {"meta": {"limit": limit}}
