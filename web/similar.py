"""Lists of products, each with its reason: similar, recommended and popular products.

Every worker builds every list: from the sales of all products in its memory, and the neighbours of
some products, which it requests from their owners.
"""

from __future__ import annotations

import msgspec
from aiohttp.web import Request, Response, StreamResponse

from web.bestsellers import LONGEST_WINDOW, WINDOWS
from web.context import WebContext
from web.http import parameters
from web.http.conditional import json_response
from web.http.handlers import ViewResponse
from web.http.parameters import LIMIT, USER
from web.http.problems import Problem
from web.http.routes import Parameter, Route
from web.meta import build_list_meta
from web.peers import read_product_names
from web.problem_types import QUERY, ROUTED
from web.recommendations import DEFAULT_LIMIT, ProductList
from web.resource_names import PRODUCT, read_product_name
from web.routing import not_served
from web.schemas import ListMeta, PopularProducts, Recommendations, SimilarProducts

#: A worker that still reads the sales tries so many others.
MAX_OTHERS = 3

encode = msgspec.json.Encoder().encode


@Route(
    "/v1/products/popular",
    "The products that most users bought",
    response=PopularProducts,
    headers=("ETag",),
    parameters=(
        Parameter("window", "The time window", {"type": "string", "enum": ["1h", "24h", "7d"]}, example="24h"),
        LIMIT,
    ),
    problems=(*QUERY, *ROUTED, "not-found"),
)
async def get_popular_products(context: WebContext, request: Request) -> ViewResponse:
    """Return the products that most users bought in a time window."""
    require_similar(context)
    parameters.require_known(request, "window", "limit")
    window = parameters.read_choice(request, "window", *WINDOWS) or LONGEST_WINDOW
    limit = parameters.read_limit(request, DEFAULT_LIMIT)
    if not context.is_sales_complete():
        return await forward_to_complete(context, request)
    products = await context.recommender.popular_products(window, limit)
    content = PopularProducts(window, products.rows, build_meta(context, limit, products))
    return list_response(request, content)


@Route(
    "/v1/products/{product_name}/similar",
    "Products that were bought by the same users",
    response=SimilarProducts,
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
async def get_similar_products(context: WebContext, request: Request) -> ViewResponse:
    """Return the products that the buyers of a product also bought."""
    require_similar(context)
    parameters.require_known(request, "limit", "intent", "for_user", "fallback")
    name = read_product_name(request, 3)
    limit = parameters.read_limit(request, DEFAULT_LIMIT)
    user = parameters.read_query_user_id(request, "for_user")
    fallback = parameters.read_choice(request, "fallback", "popular", "none")
    complementary = parameters.read_choice(request, "intent", "related", "complementary") == "complementary"
    if not context.is_sales_complete():
        return await forward_to_complete(context, request)
    recommender = context.recommender
    is_known = recommender.has_sales(name)
    if not is_known and fallback != "popular":
        raise unknown_product()
    purchased = None if user is None else await read_product_names(context, request, user)
    excluded = [name] if purchased is None else [name, *purchased.product_names]
    if is_known:
        products = await recommender.similar_products(
            request, name, limit, excluded=excluded, complementary=complementary, fallback=fallback != "none"
        )
    else:
        products = await recommender.popular_products(LONGEST_WINDOW, limit, excluded)
    if purchased is not None:
        products = products.with_purchases_from(purchased.role)
    if products.problem is not None and not products.rows:
        raise products.problem
    return list_response(request, SimilarProducts(name, products.rows, build_meta(context, limit, products)))


@Route(
    "/v1/users/{user_id}/recommendations",
    "Products that the user may like, each with its reason",
    response=Recommendations,
    headers=("ETag",),
    parameters=(
        USER,
        LIMIT,
        Parameter("exclude", "The products to leave out", {"type": "string", "enum": ["purchased", "none"]}),
    ),
    problems=("invalid-user-id", *QUERY, *ROUTED, "not-found"),
)
async def get_recommendations(context: WebContext, request: Request) -> ViewResponse:
    """Return products that a user may like; for an unknown user the bestsellers."""
    require_similar(context)
    parameters.require_known(request, "limit", "exclude")
    user = parameters.read_user_id(request, 3)
    limit = parameters.read_limit(request, DEFAULT_LIMIT)
    exclude_purchased = parameters.read_choice(request, "exclude", "purchased", "none") != "none"
    if not context.is_sales_complete():
        return await forward_to_complete(context, request)
    purchased = await read_product_names(context, request, user)
    products = await context.recommender.recommend(
        request, purchased.product_names, limit, exclude_purchased=exclude_purchased
    )
    products = products.with_purchases_from(purchased.role)
    return list_response(request, Recommendations(user, products.rows, build_meta(context, limit, products)))


def build_meta(context: WebContext, limit: int, products: ProductList) -> ListMeta:
    """Return the `meta` of a list of products of this worker."""
    freshness, worker = context.list_freshness(), context.worker.address()
    return build_list_meta(limit, freshness, products.problem is None, products.role, worker)


def list_response(request: Request, content: PopularProducts | Recommendations | SimilarProducts) -> Response:
    """Return a list of products as JSON; its ETag depends neither on its age nor on the worker."""
    meta = content.meta
    stable = msgspec.structs.replace(meta, as_of=None, lag_ms=None, worker="", guarantee="")
    return json_response(request, content, encode(msgspec.structs.replace(content, meta=stable)))


async def forward_to_complete(context: WebContext, request: Request) -> StreamResponse:
    """Respond as another worker does, because this one still reads the sales of all products.

    Raises Problem 503 recovering.
    """
    own = context.worker.address()
    others = [address for address in context.worker.workers() if address != own]
    return await context.router.forward_to_any(request, others[:MAX_OTHERS], not_served("recovering"))


def require_similar(context: WebContext) -> None:
    """Raise Problem 404 not-found with LATELY_SIMILAR=0, 421 agent-elsewhere if no process runs the agent."""
    if not context.settings.similar:
        raise Problem(404, "not-found", "this is switched off: LATELY_SIMILAR is 0")
    context.router.require_agent("similar")


def unknown_product() -> Problem:
    """Return the Problem of a product without sales."""
    return Problem(404, "unknown-product", "nobody bought a product of this name")
