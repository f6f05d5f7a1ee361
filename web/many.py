"""What several users bought lately, in one answer: GET /v1/purchases?user_id=…&user_id=…"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from urllib.parse import urlencode

import msgspec
from aiohttp.web import Request, Response
from yarl import URL

from app.core import app, settings
from app.topics import partition_of
from chunks import ClosedPartition
from tables import by_user
from web import parameters
from web.errors import Problem
from web.parameters import Query
from web.purchases import HEADERS, said
from web.routing import RETRY_AFTER_S, forwarded, owner_of, recovering

#: One user's part of the answer: what GET …/purchases says, or `user_id` and `error`.
Part = dict[str, object]


@app.page("/v1/purchases")
async def many(self, request: Request) -> Response:
    """The newest purchases of up to 100 users, each with an error of its own where a worker is away."""
    query = parameters.query(request, ("user_id", *parameters.FILTERS), settings.recent_limit)
    users = parameters.user_ids(request)
    here: dict[str, Part] = {}
    elsewhere: dict[URL, list[str]] = {}
    for user in users:
        try:
            owner = owner_of(request, by_user.by_user, _partition(user))
            if owner is None:
                here[user] = _from_table(user, query)
            else:
                elsewhere.setdefault(owner, []).append(user)
        except Problem as problem:
            here[user] = _failed(user, problem)
    parts = await asyncio.gather(*(_ask(request, owner, asked) for owner, asked in elsewhere.items()))
    found = here | {str(part["user_id"]): part for answered in parts for part in answered}
    return _answer(query, [found[user] for user in users])


def _partition(user: str) -> int:
    return partition_of(user.encode(), settings.partitions)


def _from_table(user: str, query: Query) -> Part:
    try:
        return msgspec.json.decode(said(user, query, None, _partition(user)).body, type=Part)
    except ClosedPartition:
        raise recovering() from None


async def _ask(request: Request, owner: URL, users: list[str]) -> list[Part]:
    """The parts of users whose partitions another worker owns."""
    pairs = [(name, text) for name, text in request.query.items() if name != "user_id"]
    path = f"{request.rel_url.raw_path}?{urlencode([*pairs, *(('user_id', user) for user in users)])}"
    try:
        answer = await forwarded(request, owner, path=path)
        body = msgspec.json.decode(answer.body, type=dict)
        if answer.status == HTTPStatus.OK:
            return body["users"]
        raise Problem(answer.status, body["code"], body["detail"], retry_after_s=RETRY_AFTER_S)
    except Problem as problem:
        return [_failed(user, problem) for user in users]


def _failed(user: str, problem: Problem) -> Part:
    return {
        "user_id": user,
        "error": {"code": problem.code, "message": problem.detail, "retry_after_ms": RETRY_AFTER_S * 1000},
    }


def _answer(query: Query, parts: list[Part]) -> Response:
    errors = [part["error"] for part in parts if "error" in part]
    if len(errors) == len(parts):
        raise Problem(503, errors[0]["code"], errors[0]["message"], retry_after_s=RETRY_AFTER_S)
    complete = not errors and all(part["meta"]["complete"] for part in parts)
    body = {"users": parts, "meta": {"limit": query.limit, "complete": complete}}
    return Response(body=msgspec.json.encode(body), headers=HEADERS)
