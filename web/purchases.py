"""GET /v1/users/{user_id}/purchases: the newest purchases of a user."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from aiohttp.web import Request
from msgspec import UNSET

from domain.errors import LatelyError
from domain.pages import PagePosition
from web import purchase_query
from web.context import WebContext
from web.http import cursor, parameters
from web.http.conditional import etag_response, is_not_modified
from web.http.handlers import AnyResponse, ViewResult
from web.http.parameters import CURSOR, USER
from web.http.prebuilt import PrebuiltResponse
from web.http.problems import Problem
from web.http.routes import Route
from web.problem_types import QUERY, ROUTED
from web.purchase_query import FRESHNESS, SELECTION, PurchaseQuery
from web.purchases_answer import PurchasesAnswer, PurchasesFallback, not_up_to_position
from web.routing import RETRY_AFTER_S
from web.schemas import UserPurchases

log = logging.getLogger(__name__)


@Route(
    "/v1/users/{user_id}/purchases",
    "The user's newest purchases; an empty list for an unknown user",
    response=UserPurchases,
    headers=("ETag", "Link"),
    parameters=(USER, *SELECTION, CURSOR, *FRESHNESS),
    problems=(
        *("invalid-user-id", "invalid-cursor", *QUERY, *ROUTED),
        *("too-stale", "not-up-to-position", "source-away"),
    ),
)
def get_purchases(context: WebContext, request: Request) -> ViewResult:
    """Return the newest purchases of a user, newest first."""
    user = parameters.read_user_id(request, 3)
    query = purchase_query.read(request, purchase_query.ALL_NAMES, context.settings.recent_limit)
    builder = context.purchases
    after = builder.decode_cursor(user, query)
    if query.consistency == "source":
        return _respond_from_mysql(context, request, user, query, after)
    fallback = PurchasesFallback(builder, request, user, query, after, _respond_later)
    fallbacks = () if query.consistency == "active" else fallback.sources
    # The owner needs the time of the wait, too.
    forward = partial(context.router.forward, wait_ms=query.wait_ms) if query.wait_ms else None

    if query.after_order is not None:
        return context.router.respond_later(
            request, "by_user", user.encode(),
            partial(_respond_after_order, context, request, user, query, after, query.after_order), forward, fallbacks,
        )  # fmt: skip

    def read_table(partition: int) -> AnyResponse:
        return _respond(request, builder.read(user, query, after, partition))

    return context.router.respond(request, "by_user", user.encode(), read_table, forward, fallbacks)


async def _respond_after_order(
    context: WebContext, request: Request, user: str, query: PurchaseQuery, after: PagePosition | None, order_id: str,
    partition: int,
) -> AnyResponse:  # fmt: skip
    await _wait_for_order(context, user, partition, order_id, query.wait_ms / 1000)
    return _respond(request, context.purchases.read(user, query, after, partition))


async def _wait_for_order(context: WebContext, user: str, partition: int, order_id: str, within_s: float) -> None:
    """Wait until the table contains the order.

    Raises Problem 503 not-up-to-position, ClosedPartition.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    with context.by_user.watch(user, partition) as watch:
        while not context.by_user.has_order(user, partition, order_id):
            if not await watch.wait(max(deadline - loop.time(), 0)):
                raise not_up_to_position()


async def _respond_from_mysql(
    context: WebContext, request: Request, user: str, query: PurchaseQuery, after: PagePosition | None
) -> AnyResponse:
    """Respond with the rows of MySQL. Raises Problem 503 source-away."""
    try:
        rows = await context.fallback.read_requested([user])
    except LatelyError as exc:
        log.warning("a request with consistency=source failed: %s", exc)
        detail = "the shop's database cannot be asked, the worker's log says why; the table still answers"
        raise Problem(503, "source-away", detail, retry_after_s=RETRY_AFTER_S) from None
    return _respond(request, context.purchases.build(user, query, after, rows))


async def _respond_later(request: Request, answer: PurchasesAnswer) -> AnyResponse:
    return _respond(request, answer)


def _respond(request: Request, answer: PurchasesAnswer) -> AnyResponse:
    following = answer.content.next_cursor
    if following is UNSET:
        if not is_not_modified(request, answer.etag):
            return PrebuiltResponse(answer.body, answer.etag)
        return etag_response(request, answer.body, answer.etag)
    return etag_response(request, answer.body, answer.etag, cursor.next_page_url(request, following))
