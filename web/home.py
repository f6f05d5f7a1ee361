"""What a user bought lately and what goes with it, for people and in one answer: the home page, and /v1/…/home."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from aiohttp.web import HTTPSeeOther, Request, Response
from msgspec import json

from app.core import settings
from chunks import ClosedPartition
from tables import by_user
from web import schemas
from web.http import parameters
from web.http.conditional import compute_etag, etag_response
from web.http.parameters import CURSOR, LIMIT, USER
from web.http.problems import HandlerResult, Problem
from web.http.routes import HTML, Access, Parameter, Route
from web.pages import page
from web.problem_types import QUERY, ROUTED
from web.purchase_query import PurchaseQuery
from web.purchases import Said, mark, said, said_instead
from web.recommendations import DEFAULT_LIMIT, Row, recommend
from web.routing import routed

#: Rows of the block "Recommended for you".
RECOMMENDED = 5


@Route(
    "/users/{user_id}",
    "The user's home page",
    media=(HTML,),
    parameters=(USER, CURSOR),
    problems=("invalid-user-id", "invalid-cursor", *QUERY, *ROUTED),
    tags=("pages",),
)
def get_home_page(context: object, request: Request) -> HandlerResult:
    """The home page of one user."""
    parameters.require_known(request, "cursor")
    user = parameters.read_user_id(request, 2)
    query = PurchaseQuery(settings.recent_limit, parameters.read_cursor(request))
    return _routed(request, user, query, lambda told: _page(user, told, query.cursor is None))


@Route(
    "/",
    "A form for a user id that leads to the user's page",
    Access.OPEN,
    (HTML,),
    parameters=(Parameter("user_id", "303 to the page of this user", USER.schema),),
    problems=("invalid-user-id",),
    tags=("pages",),
)
async def get_front_page(context: object, request: Request) -> Response:
    """A form that asks for a user id and goes to the user's home page."""
    wanted = parameters.read_query_user_id(request, "user_id")
    if wanted is not None:
        raise HTTPSeeOther(f"/users/{quote(wanted, safe='')}")
    return page("front.html")


@Route(
    "/v1/users/{user_id}/home",
    "Purchases and recommendations in one response",
    response=schemas.UserHome,
    headers=("ETag",),
    parameters=(USER, LIMIT),
    problems=("invalid-user-id", *QUERY, *ROUTED),
)
def get_home(context: object, request: Request) -> HandlerResult:
    """Both blocks of the home page in one answer."""
    parameters.require_known(request, "limit")
    user = parameters.read_user_id(request, 3)
    query = PurchaseQuery(parameters.read_limit(request, settings.recent_limit))
    recommended = parameters.read_limit(request, DEFAULT_LIMIT)
    return _routed(request, user, query, lambda told: _blocks(request, user, told, recommended))


def _routed(
    request: Request, user: str, query: PurchaseQuery, answer: Callable[[Said], Awaitable[Response]]
) -> HandlerResult:
    """The answer that is made of what is said of the user's purchases, by whoever can say it."""
    after = mark(user, query)

    async def instead(problem: Problem, partition: int) -> Response:
        return await answer(await said_instead(request, user, query, after, partition, problem))

    return routed(
        request,
        by_user.by_user,
        user.encode(),
        lambda partition: answer(said(user, query, after, partition)),
        instead=instead,
    )


async def _blocks(request: Request, user: str, told: Said, limit: int) -> Response:
    recommended = json.encode(await _recommended(user, limit))
    body = b'%b,"recommendations":%b}' % (told.body[:-1], recommended)
    return etag_response(request, body, compute_etag(told.etag.encode() + recommended))


async def _recommended(user: str, limit: int) -> list[Row] | None:
    """What the user may like; None where that is not counted, or not here."""
    if not settings.similar:
        return None
    try:
        return await recommend(user, limit)
    except ClosedPartition:
        return None


async def _page(user: str, told: Said, newest: bool) -> Response:
    shown = json.decode(told.body)
    values = {name: shown[name] for name in ("purchases", "meta")}
    recommended = await _recommended(user, RECOMMENDED) if newest else None
    return page(
        "home.html", user=user, newest=newest, recommendations=recommended, older=told.next_cursor, **values
    )  # fmt: skip
