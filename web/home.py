"""The home page of a user (/users/{user_id}), and its content as JSON (/v1/users/{user_id}/home)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

import msgspec
from aiohttp.web import HTTPSeeOther, Request, Response
from msgspec import UNSET

from web.context import WebContext
from web.http import parameters
from web.http.conditional import compute_etag, etag_response
from web.http.handlers import ViewResponse, ViewResult
from web.http.parameters import CURSOR, LIMIT, USER
from web.http.routes import HTML, Access, Parameter, Route
from web.pages import page
from web.problem_types import QUERY, ROUTED
from web.purchase_query import PurchaseQuery
from web.purchases_answer import PurchasesAnswer, PurchasesFallback
from web.recommendations import DEFAULT_LIMIT
from web.schemas import ListMeta, Suggestion, UserHome
from web.similar import build_meta

#: Rows of the block "Recommended for you".
RECOMMENDATIONS = 5

_encode = msgspec.json.Encoder().encode


@Route(
    "/",
    "A form for a user id that leads to the user's page",
    Access.OPEN,
    (HTML,),
    parameters=(Parameter("user_id", "303 to the page of this user", USER.schema),),
    problems=("invalid-user-id",),
    tags=("pages",),
)
async def get_front_page(context: WebContext, request: Request) -> Response:
    """Show a form for a user id, or redirect to the home page of the user."""
    user = parameters.read_query_user_id(request, "user_id")
    if user is not None:
        raise HTTPSeeOther(f"/users/{quote(user, safe='')}")
    return page("front.html")


@Route(
    "/users/{user_id}",
    "The user's home page",
    media=(HTML,),
    parameters=(USER, CURSOR),
    problems=("invalid-user-id", "invalid-cursor", *QUERY, *ROUTED),
    tags=("pages",),
)
def get_home_page(context: WebContext, request: Request) -> ViewResult:
    """Show the purchases of a user, and on the first page also recommendations."""
    parameters.require_known(request, "cursor")
    user = parameters.read_user_id(request, 2)
    query = PurchaseQuery(context.settings.recent_limit, parameters.read_cursor(request))

    async def respond(request: Request, answer: PurchasesAnswer) -> Response:
        is_first = query.cursor is None
        suggestions = (await _recommend(context, request, answer, RECOMMENDATIONS))[0] if is_first else None
        following = answer.content.next_cursor
        return page(
            "home.html",
            user=user,
            newest=is_first,
            purchases=msgspec.to_builtins(answer.content.purchases),
            meta=answer.meta,
            recommendations=msgspec.to_builtins(suggestions),
            older=None if following is UNSET else following,
        )

    return _respond(context, request, user, query, respond)


@Route(
    "/v1/users/{user_id}/home",
    "Purchases and recommendations in one response",
    response=UserHome,
    headers=("ETag",),
    parameters=(USER, LIMIT),
    problems=("invalid-user-id", *QUERY, *ROUTED),
)
def get_home(context: WebContext, request: Request) -> ViewResult:
    """Return the content of both blocks of the home page."""
    parameters.require_known(request, "limit")
    user = parameters.read_user_id(request, 3)
    query = PurchaseQuery(parameters.read_limit(request, context.settings.recent_limit))
    limit = parameters.read_limit(request, DEFAULT_LIMIT)

    async def respond(request: Request, answer: PurchasesAnswer) -> Response:
        rows, meta = await _recommend(context, request, answer, limit)
        suggestions = _encode(rows)
        body = b'%b,"recommendations":%b,"recommendations_meta":%b}' % (answer.body[:-1], suggestions, _encode(meta))
        terms = None if meta is None else (meta.complete, meta.role)
        return etag_response(request, body, compute_etag(answer.etag.encode() + suggestions + _encode(terms)))

    return _respond(context, request, user, query, respond)


def _respond(
    context: WebContext, request: Request, user: str, query: PurchaseQuery,
    respond: Callable[[Request, PurchasesAnswer], Awaitable[ViewResponse]],
) -> ViewResult:  # fmt: skip
    """Return the response that `respond` builds from the purchases of a user."""
    builder = context.purchases
    after = builder.decode_cursor(user, query)
    fallbacks = PurchasesFallback(builder, request, user, query, after, respond).sources

    async def read_table(partition: int) -> ViewResponse:
        return await respond(request, builder.read(user, query, after, partition))

    return context.router.respond_later(request, "by_user", user.encode(), read_table, fallbacks=fallbacks)


async def _recommend(
    context: WebContext, request: Request, answer: PurchasesAnswer, limit: int
) -> tuple[list[Suggestion], ListMeta] | tuple[None, None]:
    """Return recommendations for the user of `answer`; None if they are not available."""
    if not context.settings.similar or not context.is_sales_complete():
        return None, None
    products = await context.recommender.recommend(request, answer.read_product_names(), limit)
    products = products.with_purchases_from(answer.meta.role)
    return products.rows, build_meta(context, limit, products)
