"""What a user bought lately and what goes with it, for people and in one answer: the home page, and /v1/…/home."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from aiohttp.web import HTTPSeeOther, Request, Response
from msgspec import json

from app.core import app, settings
from chunks import ClosedPartition
from tables import by_user
from web.http import parameters
from web.http.conditional import tag, tagged
from web.http.parameters import Query
from web.http.problems import Answered, Problem
from web.pages import page
from web.purchases import Said, mark, said, said_instead
from web.recommendations import DEFAULT_LIMIT, Row, recommend
from web.routing import routed

#: Rows of the block "Recommended for you".
RECOMMENDED = 5


@app.page("/users/{user_id:[^/]*}")
def home(self, request: Request, user_id: str) -> Answered:
    """The home page of one user."""
    parameters.only(request, "cursor")
    user = parameters.user_id(request, 2)
    query = Query(settings.recent_limit, parameters.cursor(request))
    return _routed(request, user, query, lambda told: _page(user, told, query.cursor is None))


@app.page("/")
async def front(self, request: Request) -> Response:
    """A form that asks for a user id and goes to the user's home page."""
    wanted = parameters.query_user_id(request, "user_id")
    if wanted is not None:
        raise HTTPSeeOther(f"/users/{quote(wanted, safe='')}")
    return page("front.html")


@app.page("/v1/users/{user_id:[^/]*}/home")
def blocks(self, request: Request, user_id: str) -> Answered:
    """Both blocks of the home page in one answer."""
    parameters.only(request, "limit")
    user = parameters.user_id(request, 3)
    query = Query(parameters.limit(request, settings.recent_limit))
    recommended = parameters.limit(request, DEFAULT_LIMIT)
    return _routed(request, user, query, lambda told: _blocks(request, user, told, recommended))


def _routed(request: Request, user: str, query: Query, answer: Callable[[Said], Awaitable[Response]]) -> Answered:
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
    return tagged(request, body, tag(told.etag.encode() + recommended))


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
