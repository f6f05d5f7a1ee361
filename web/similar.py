"""Lists of products, each with its reason: similar, recommended and popular products."""

from __future__ import annotations

from aiohttp.web import Request

from web.context import WebContext
from web.http import parameters
from web.http.handlers import ViewResult
from web.http.parameters import LIMIT, USER
from web.http.problems import Problem
from web.http.routes import Parameter, Route
from web.problem_types import QUERY, ROUTED
from web.recommendations import DEFAULT_LIMIT, LONGEST_WINDOW, WINDOWS
from web.resource_names import PRODUCT, read_product_name
from web.schemas import ListMeta, PopularProducts, Recommendations, SimilarProducts


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
def get_popular_products(context: WebContext, request: Request) -> ViewResult:
    """Return the products that most users bought in a time window."""
    require_similar(context)
    parameters.require_known(request, "window", "limit")
    window = parameters.read_choice(request, "window", *WINDOWS) or LONGEST_WINDOW
    limit = parameters.read_limit(request, DEFAULT_LIMIT)

    async def read_table(_partition: int) -> PopularProducts:
        return PopularProducts(window, await context.recommender.popular_products(window, limit), ListMeta(limit))

    return context.router.respond_later(request, "similar", b"", read_table)


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
def get_similar_products(context: WebContext, request: Request) -> ViewResult:
    """Return the products that the buyers of a product also bought."""
    require_similar(context)
    parameters.require_known(request, "limit", "intent", "for_user", "fallback")
    name = read_product_name(request, 3)
    limit = parameters.read_limit(request, DEFAULT_LIMIT)
    user = parameters.read_query_user_id(request, "for_user")
    fallback = parameters.read_choice(request, "fallback", "popular", "none")
    complementary = parameters.read_choice(request, "intent", "related", "complementary") == "complementary"

    async def read_table(_partition: int) -> SimilarProducts:
        recommender = context.recommender
        rows = await recommender.similar_products(
            name, limit, for_user=user, complementary=complementary, fallback=fallback != "none"
        )
        if rows is None and fallback == "popular":
            excluded = {name, *recommender.purchased_products(user)} if user else {name}
            rows = await recommender.popular_products(LONGEST_WINDOW, limit, excluded)
        if rows is None:
            raise unknown_product()
        return SimilarProducts(name, rows, ListMeta(limit))

    return context.router.respond_later(request, "similar", name.encode(), read_table)


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
def get_recommendations(context: WebContext, request: Request) -> ViewResult:
    """Return products that a user may like; for an unknown user the bestsellers."""
    require_similar(context)
    parameters.require_known(request, "limit", "exclude")
    user = parameters.read_user_id(request, 3)
    limit = parameters.read_limit(request, DEFAULT_LIMIT)
    exclude_purchased = parameters.read_choice(request, "exclude", "purchased", "none") != "none"

    async def read_table(_partition: int) -> Recommendations:
        context.router.require_table("similar")  # the owner of the user reads both tables
        rows = await context.recommender.recommend(user, limit, exclude_purchased=exclude_purchased)
        return Recommendations(user, rows, ListMeta(limit))

    return context.router.respond_later(request, "by_user", user.encode(), read_table)


def require_similar(context: WebContext) -> None:
    """Raise Problem 404 not-found with LATELY_SIMILAR=0, 421 agent-elsewhere if no process runs the agent."""
    if not context.settings.similar:
        raise Problem(404, "not-found", "this is switched off: LATELY_SIMILAR is 0")
    context.router.require_agent("similar")


def unknown_product() -> Problem:
    """Return the Problem of a product without sales."""
    return Problem(404, "unknown-product", "nobody bought a product of this name")
