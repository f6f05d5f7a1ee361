"""What users bought lately, for programs: GET /v1/users/{user_id}/purchases."""

from __future__ import annotations

import asyncio
import logging
from functools import cache, partial
from typing import NamedTuple

import msgspec
from aiohttp.web import Request, Response

from app.core import settings
from app.services.source_status import Freshness
from domain import pages
from domain.errors import LatelyError
from domain.pages import PagePosition, PurchasesPage
from domain.purchases import Purchase
from source import user_rows
from source.user_rows import UserRows
from tables import by_user
from web import fallback, purchase_query, schemas
from web.http import cursor, parameters
from web.http.conditional import compute_etag, etag_response, is_not_modified
from web.http.parameters import CURSOR, USER
from web.http.prebuilt import PrebuiltResponse
from web.http.problems import HandlerResult, Problem
from web.http.routes import Route
from web.meta import meta, require_fresh
from web.problem_types import QUERY, ROUTED
from web.purchase_query import PurchaseQuery
from web.routing import RETRY_AFTER_S, forwarded, routed

log = logging.getLogger(__name__)

_ROWS = {None: "purchases", "order": "orders", "product": "products"}
_PAGES = {None: pages.paginate_purchases, "order": pages.paginate_orders, "product": pages.paginate_products}

_encode = msgspec.json.Encoder().encode


class Said(NamedTuple):
    """An answer about one user: its JSON, what stands for its content, and the cursor of the next page."""

    body: bytes
    etag: str
    next_cursor: str | None


@Route(
    "/v1/users/{user_id}/purchases",
    "The user's newest purchases; an empty list for an unknown user",
    response=schemas.UserPurchases,
    headers=("ETag", "Link"),
    parameters=(USER, *purchase_query.SELECTION, CURSOR, *purchase_query.FRESHNESS),
    problems=(
        *("invalid-user-id", "invalid-cursor", *QUERY, *ROUTED),
        *("too-stale", "not-up-to-position", "source-away"),
    ),
)
def get_purchases(context: object, request: Request) -> HandlerResult:
    """The user's newest purchases, newest first; a user never seen has none."""
    user = parameters.read_user_id(request, 3)
    query = purchase_query.read(request, purchase_query.ALL_NAMES, settings.recent_limit)
    after = mark(user, query)
    if query.consistency == "source":
        return _from_source(request, user, query, after)

    def answer(partition: int) -> HandlerResult:
        if query.after_order is not None:
            return _after_arrival(request, user, query, after, partition)
        return _answer(request, said(user, query, after, partition))

    def instead(problem: Problem, partition: int) -> HandlerResult:
        return _instead(request, user, query, after, partition, problem)

    forward = partial(forwarded, wait_ms=query.wait_ms)
    return routed(
        request, by_user.by_user, user.encode(), answer, forward, None if query.consistency == "active" else instead
    )


def mark(user: str, query: PurchaseQuery) -> PagePosition | None:
    """Where the page begins. Raises Problem 400 invalid-cursor."""
    return None if query.cursor is None else cursor.read(cursor.KEY, query.bound_to(user), query.cursor, PagePosition)


def said(user: str, query: PurchaseQuery, after: PagePosition | None, partition: int, role: str = "active") -> Said:
    """What the table says of a user. Raises Problem 503 too-stale, ClosedPartition."""
    fresh = by_user.freshness(partition)
    limit = query.limit + 1 if query.group_by is None else None
    # A group stands where its newest purchase does, but shows those before it and after it.
    start = after if query.group_by is None else None
    return _say(user, query, after, by_user.known(user, partition, query.filter, start, limit), fresh, role)


def said_by_source(user: str, query: PurchaseQuery, after: PagePosition | None, read: UserRows) -> Said:
    """What is said of a user by the shop's database."""
    # It was asked after the request had come: nothing is fresher.
    fresh = Freshness(read.as_of, 0, "proven", None)
    wanted = [one for one in read.purchases[user] if query.filter.matches(one)]
    return _say(user, query, after, wanted, fresh, fallback.SOURCE)


async def said_instead(
    request: Request, user: str, query: PurchaseQuery, after: PagePosition | None, partition: int, problem: Problem
) -> Said:
    """What is said of a user though the owner of the partition says nothing. Raises Problem, else the given one."""

    def from_copy() -> Said:
        if query.after_order is not None and not by_user.knows_order(user, partition, query.after_order):
            raise _not_up_to_position()
        return said(user, query, after, partition, fallback.STANDBY)

    def from_source(read: UserRows) -> Said:
        _demand_order(query, read.purchases[user])
        return said_by_source(user, query, after, read)

    return await fallback.instead(request, problem, user, partition, from_copy, from_source)


async def _instead(
    request: Request, user: str, query: PurchaseQuery, after: PagePosition | None, partition: int, problem: Problem
) -> Response | PrebuiltResponse:
    return _answer(request, await said_instead(request, user, query, after, partition, problem))


def _say(
    user: str, query: PurchaseQuery, after: PagePosition | None, registers: list[Purchase], fresh: Freshness, role: str
) -> Said:
    require_fresh(query, fresh)
    page: PurchasesPage = _PAGES[query.group_by](registers, after, query.limit)
    content = {"user_id": user, _ROWS[query.group_by]: page.rows}
    following = None
    if page.next_position is not None:
        following = content["next_cursor"] = cursor.write(cursor.KEY, query.bound_to(user), page.next_position)
    about = meta(query, page, fresh, role)
    shown = _encode(content)
    body = b'%b,"meta":%b}' % (shown[:-1], _encode(about))
    # Freshness moves all the time and is no part of the content.
    return Said(body, compute_etag(shown + _terms(query.limit, about["complete"], role)), following)


@cache
def _terms(limit: int, complete: bool, role: str) -> bytes:
    return _encode((limit, complete, role))


async def _after_arrival(
    request: Request, user: str, query: PurchaseQuery, after: PagePosition | None, partition: int
) -> Response | PrebuiltResponse:
    await _arrival(user, query.after_order, query.wait_ms, partition)
    return _answer(request, said(user, query, after, partition))


async def _arrival(user: str, order_id: str, wait_ms: int, partition: int) -> None:
    """Return as soon as the table knows the order. Raises Problem 503 not-up-to-position, ClosedPartition."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_ms / 1000
    with by_user.watch(user, partition) as watch:
        while not by_user.knows_order(user, partition, order_id):
            if not await watch.wait(max(end - loop.time(), 0)):
                raise _not_up_to_position()


async def _from_source(
    request: Request, user: str, query: PurchaseQuery, after: PagePosition | None
) -> Response | PrebuiltResponse:
    """What the shop's database says. Raises Problem 503 source-away."""
    try:
        read = await fallback.read(lambda: user_rows.read_user_rows(settings, [user]))
    except LatelyError as exc:
        log.warning("consistency=source cannot be answered: %s", exc)
        detail = "the shop's database cannot be asked, the worker's log says why; the table still answers"
        raise Problem(503, "source-away", detail, retry_after_s=RETRY_AFTER_S) from None
    _demand_order(query, read.purchases[user])
    return _answer(request, said_by_source(user, query, after, read))


def _demand_order(query: PurchaseQuery, registers: list[Purchase]) -> None:
    if query.after_order is not None and query.after_order not in {str(one.order_id) for one in registers}:
        raise _not_up_to_position()


def _not_up_to_position() -> Problem:
    detail = "no purchase of the order in after_order has arrived for this user yet"
    return Problem(503, "not-up-to-position", detail, parameter="after_order", retry_after_s=RETRY_AFTER_S)


def _answer(request: Request, said: Said) -> Response | PrebuiltResponse:
    if said.next_cursor is None and not is_not_modified(request, said.etag):
        return PrebuiltResponse(said.body, said.etag)
    link = None if said.next_cursor is None else cursor.next_page_url(request, said.next_cursor)
    return etag_response(request, said.body, said.etag, link)
