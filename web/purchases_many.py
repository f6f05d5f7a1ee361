"""GET /v1/purchases?user_id=…&user_id=…: the newest purchases of several users in one response."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

import msgspec
from aiohttp.web import Request
from msgspec import UNSET, Raw, Struct
from yarl import URL

from chunks import ClosedPartition
from domain.partitioning import partition_of
from web import purchase_query
from web.context import WebContext
from web.http import parameters
from web.http.conditional import json_response
from web.http.handlers import AnyResponse
from web.http.parameters import USER
from web.http.problems import Problem
from web.http.routes import Parameter, Route
from web.http.schemas import ProblemDetails
from web.problem_types import QUERY, ROUTED
from web.purchase_query import SELECTION, SELECTION_NAMES, PurchaseQuery
from web.purchases_answer import PurchasesAnswer, compute_answer_etag
from web.routing import RETRY_AFTER_S, OwnerResponse, not_served, problem_from_owner
from web.schemas import ManyPurchases, ManyPurchasesMeta, PurchasesContent, UserError, UserPurchasesOrError

_encode = msgspec.json.Encoder().encode
_decode_part = msgspec.json.Decoder(UserPurchasesOrError).decode


class UserPart(NamedTuple):
    """The purchases of one user as JSON; `is_complete`: no row can be missing."""

    body: Raw
    etag: str
    is_complete: bool


class _Body(Struct):
    """ManyPurchases with parts that are encoded already."""

    users: list[Raw]
    meta: ManyPurchasesMeta


Parts = dict[str, UserPart]
Problems = dict[str, Problem]


@Route(
    "/v1/purchases",
    "The purchases of up to 100 users in one response",
    response=ManyPurchases,
    headers=("ETag",),
    parameters=(
        Parameter(
            "user_id",
            "A user's id; give it once per user",
            {"type": "array", "items": USER.schema, "minItems": 1, "maxItems": 100},
            example=["ann", "bob"],
        ),
        *SELECTION,
    ),
    problems=("invalid-user-id", *QUERY, *ROUTED),
)
async def get_many_purchases(context: WebContext, request: Request) -> AnyResponse:
    """Return the newest purchases of up to 100 users; a user without a source has an error instead.

    The sources are those of one user, but each is used for all remaining users at once:

    1. the table of this worker, and the owners of the other partitions;
    2. the copies on this worker;
    3. MySQL, in one query.
    """
    query = purchase_query.read(request, ("user_id", *SELECTION_NAMES), context.settings.recent_limit)
    users = parameters.read_user_ids(request)
    # 1.
    parts, problems, remote = _read_tables(context, request, users, query)
    requests = (_request_parts(context, request, owner, names) for owner, names in remote.items())
    for remote_parts, remote_problems in await asyncio.gather(*requests):
        parts |= remote_parts
        problems |= remote_problems
    # 2.
    by_partition = _group_by_partition(context, problems)
    reads = (_read_standby(context, partition, names, query) for partition, names in by_partition.items())
    for standby_parts in await asyncio.gather(*reads):
        parts |= standby_parts
    # 3.
    missing = [user for user in problems if user not in parts]
    rows = await context.fallback.read_mysql(request, missing) if missing else None
    if rows is not None:
        parts |= {user: _part(context.purchases.build(user, query, None, rows)) for user in missing}
    return _respond(request, query, users, parts, problems)


def _read_tables(
    context: WebContext, request: Request, users: list[str], query: PurchaseQuery
) -> tuple[Parts, Problems, dict[URL, list[str]]]:
    """Read the users of this worker; return the others by their owner, or with their Problem."""
    parts: Parts = {}
    problems: Problems = {}
    remote: dict[URL, list[str]] = {}
    for user in users:
        partition = _partition(context, user)
        try:
            owner = context.router.locate_owner(request, "by_user", partition)
            if owner is None:
                parts[user] = _part(context.purchases.read(user, query, None, partition))
            else:
                remote.setdefault(owner, []).append(user)
        except Problem as problem:
            problems[user] = problem
        except ClosedPartition:
            problems[user] = not_served("recovering")
    return parts, problems, remote


def _partition(context: WebContext, user: str) -> int:
    return partition_of(user.encode(), context.settings.partitions)


def _group_by_partition(context: WebContext, users: Iterable[str]) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = {}
    for user in users:
        groups.setdefault(_partition(context, user), []).append(user)
    return groups


def _part(answer: PurchasesAnswer) -> UserPart:
    return UserPart(Raw(answer.body), answer.etag, answer.meta.complete)


async def _read_standby(context: WebContext, partition: int, users: list[str], query: PurchaseQuery) -> Parts:
    def read() -> Parts:
        return {user: _part(context.purchases.read(user, query, None, partition, "standby")) for user in users}

    return await context.fallback.read_standby(partition, read) or {}


async def _request_parts(context: WebContext, request: Request, owner: URL, users: list[str]) -> tuple[Parts, Problems]:
    """Request the parts of users from the worker that owns their partitions."""
    pairs = [(name, value) for name, value in request.query.items() if name != "user_id"]
    # The encoding of the client is kept: another one could be longer than a request line may be.
    path = request.rel_url.with_query([*pairs, *(("user_id", user) for user in users)]).raw_path_qs
    try:
        response = await context.router.fetch(request, owner, path=path)
        if response.status != HTTPStatus.OK:
            raise _problem(response)
    except Problem as problem:
        return {}, dict.fromkeys(users, problem)
    parts: Parts = {}
    problems: Problems = {}
    for raw in msgspec.json.decode(response.body, type=_Body).users:
        part = _decode_part(raw)
        if part.error is not UNSET:
            problems[part.user_id] = problem_from_owner(part.error.code)
        elif part.meta is not UNSET:
            content = PurchasesContent(part.user_id, part.purchases, part.orders, part.products, part.next_cursor)
            etag = compute_answer_etag(_encode(content), part.meta)
            parts[part.user_id] = UserPart(raw, etag, part.meta.complete)
    return parts, problems


def _problem(response: OwnerResponse) -> Problem:
    problem = msgspec.json.decode(response.body, type=ProblemDetails)
    if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return problem_from_owner(problem.code)
    return Problem(response.status, problem.code, problem.detail, retry_after_s=RETRY_AFTER_S)


def _respond(request: Request, query: PurchaseQuery, users: list[str], parts: Parts, problems: Problems) -> AnyResponse:
    missing = [user for user in users if user not in parts]
    if len(missing) == len(users):
        problem = problems[users[0]]
        if problem.status == HTTPStatus.MISDIRECTED_REQUEST:
            raise problem  # no process runs the agent, for all users alike
        raise Problem(503, problem.code, problem.detail, retry_after_s=RETRY_AFTER_S)
    errors = {user: Raw(_encode(_error(user, problems[user]))) for user in missing}
    bodies = [parts[user].body if user in parts else errors[user] for user in users]
    is_complete = not missing and all(part.is_complete for part in parts.values())
    identity = _encode([query.limit, *(parts[user].etag if user in parts else errors[user] for user in users)])
    return json_response(request, _Body(bodies, ManyPurchasesMeta(query.limit, is_complete)), identity)


def _error(user: str, problem: Problem) -> UserPurchasesOrError:
    return UserPurchasesOrError(user, error=UserError(problem.code, problem.detail, RETRY_AFTER_S * 1000))
