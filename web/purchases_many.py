"""What several users bought lately, in one answer: GET /v1/purchases?user_id=…&user_id=…"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http import HTTPStatus

import msgspec
from aiohttp.web import Request, Response
from yarl import URL

from app.core import settings
from chunks import ClosedPartition
from domain.partitioning import partition_of
from tables import by_user
from web import fallback, purchase_query, schemas
from web.http import conditional, parameters
from web.http.parameters import USER
from web.http.problems import Problem
from web.http.routes import Parameter, Route
from web.problem_types import QUERY, ROUTED
from web.purchase_query import PurchaseQuery
from web.purchases import Said, said, said_by_source
from web.routing import RETRY_AFTER_S, demand_kept, forwarded, heard, owner_of, recovering

#: One user's part of the answer: what GET …/purchases says, or `user_id` and `error`.
Part = dict[str, object]


@Route(
    "/v1/purchases",
    "The purchases of up to 100 users in one response",
    response=schemas.ManyPurchases,
    headers=("ETag",),
    parameters=(
        Parameter(
            "user_id",
            "A user's id; give it once per user",
            {"type": "array", "items": USER.schema, "minItems": 1, "maxItems": 100},
            example=["ann", "bob"],
        ),
        *purchase_query.SELECTION,
    ),
    problems=("invalid-user-id", *QUERY, *ROUTED),
)
async def get_many_purchases(context: object, request: Request) -> Response:
    """The newest purchases of up to 100 users, each with an error of its own where nobody can say anything of them.

    1. This worker and the owners of the others are asked. 2. Of those for whom they have nothing to say this worker's
    copies are. 3. For the rest it is MySQL, once.
    """
    query = purchase_query.read(request, ("user_id", *purchase_query.SELECTION_NAMES), settings.recent_limit)
    users = parameters.read_user_ids(request)
    demand_kept(by_user.by_user)
    found: dict[str, Part] = {}
    missing: dict[str, Problem] = {}
    elsewhere: dict[URL, list[str]] = {}
    # 1.
    for user in users:
        try:
            owner = owner_of(request, by_user.by_user, _partition(user))
            if owner is None:
                found[user] = _from_table(user, query)
            else:
                elsewhere.setdefault(owner, []).append(user)
        except Problem as problem:
            missing[user] = problem
        except ClosedPartition:
            missing[user] = recovering()
    for parts, problems in await asyncio.gather(*(_ask(request, owner, asked) for owner, asked in elsewhere.items())):
        found |= parts
        missing |= problems
    # 2.
    for parts in await asyncio.gather(*(_from_copy(one, query) for one in _by_partition(missing).items())):
        found |= parts
    # 3.
    rest = [user for user in missing if user not in found]
    read = await fallback.asked(request, rest) if rest else None
    if read is not None:
        found |= {user: _part(said_by_source(user, query, None, read)) for user in rest}
    return _answer(request, query, [found.get(user) or _failed(user, missing[user]) for user in users])


def _partition(user: str) -> int:
    return partition_of(user.encode(), settings.partitions)


def _by_partition(users: Iterable[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for user in users:
        found.setdefault(_partition(user), []).append(user)
    return found


def _part(told: Said) -> Part:
    return msgspec.json.decode(told.body, type=Part)


def _from_table(user: str, query: PurchaseQuery, role: str = "active") -> Part:
    return _part(said(user, query, None, _partition(user), role))


async def _from_copy(one: tuple[int, list[str]], query: PurchaseQuery) -> dict[str, Part]:
    partition, users = one
    parts = await fallback.copied(partition, lambda: {u: _from_table(u, query, fallback.STANDBY) for u in users})
    return parts or {}


async def _ask(request: Request, owner: URL, users: list[str]) -> tuple[dict[str, Part], dict[str, Problem]]:
    """The parts of users whose partitions another worker owns, and why there are none of the others."""
    pairs = [(name, text) for name, text in request.query.items() if name != "user_id"]
    # As the client may write them: written otherwise they could be longer than a request line may be.
    path = request.rel_url.with_query([*pairs, *(("user_id", user) for user in users)]).raw_path_qs
    try:
        answer = await forwarded(request, owner, path=path)
        body = msgspec.json.decode(answer.body, type=dict)
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise heard(body["code"])
        if answer.status != HTTPStatus.OK:
            raise Problem(answer.status, body["code"], body["detail"], retry_after_s=RETRY_AFTER_S)
    except Problem as problem:
        return {}, dict.fromkeys(users, problem)
    parts = {str(part["user_id"]): part for part in body["users"]}
    return (
        {user: part for user, part in parts.items() if "error" not in part},
        {user: heard(part["error"]["code"]) for user, part in parts.items() if "error" in part},
    )


def _failed(user: str, problem: Problem) -> Part:
    return {
        "user_id": user,
        "error": {"code": problem.code, "message": problem.detail, "retry_after_ms": RETRY_AFTER_S * 1000},
    }


def _answer(request: Request, query: PurchaseQuery, parts: list[Part]) -> Response:
    errors = [part["error"] for part in parts if "error" in part]
    if len(errors) == len(parts):
        raise Problem(503, errors[0]["code"], errors[0]["message"], retry_after_s=RETRY_AFTER_S)
    complete = not errors and all(part["meta"]["complete"] for part in parts)
    body = {"users": parts, "meta": {"limit": query.limit, "complete": complete}}
    identity = msgspec.json.encode([query.limit, *map(_content, parts)])
    return conditional.json_response(request, body, identity)


def _content(part: Part) -> Part:
    # Freshness is no part of it.
    return {**part, "meta": (part["meta"]["complete"], part["meta"]["role"])} if "meta" in part else part
