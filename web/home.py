"""What a user bought lately, for people: the home page."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp.web import HTTPSeeOther, Request, Response

from app.core import app, settings
from app.lists import purchase
from tables import by_user
from web import parameters
from web.pages import page
from web.routing import routed


@app.page("/users/{user_id:[^/]*}")
async def home(self, request: Request, user_id: str) -> Response:
    """The home page of one user."""
    parameters.only(request)
    user = parameters.user_id(request, 2)
    return await routed(request, by_user.by_user, user.encode(), lambda partition: _answer(user, partition))


@app.page("/")
async def front(self, request: Request) -> Response:
    """A form that asks for a user id and goes to the user's home page."""
    wanted = request.query.get("user_id")
    if wanted:
        raise HTTPSeeOther(f"/users/{quote(wanted, safe='')}")
    return page("front.html")


def _answer(user: str, partition: int) -> Response:
    shown = by_user.shown(user, partition, settings.recent_limit)
    return page("home.html", user=user, purchases=[purchase(one) for one in shown])
