"""The answer about the purchases of one user, built from the table, a standby copy or MySQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import NamedTuple

import msgspec
from aiohttp.web import Request

from app import metrics
from app.services.source_status import Freshness
from app.settings import Settings
from domain.pages import PagePosition
from domain.purchases import Purchase, product_names
from source.user_rows import UserRows
from tables.by_user import ByUserReader
from web.fallback import NOBODY, SOURCE, STANDBY, Fallback
from web.http import cursor
from web.http.conditional import compute_etag
from web.http.handlers import ViewResponse
from web.http.problems import Problem
from web.meta import build_meta, require_fresh
from web.purchase_query import PurchaseQuery
from web.purchase_rows import build_content
from web.routing import RETRY_AFTER_S, AnswerSource
from web.schemas import PurchasesContent, PurchasesMeta, Role

_encode = msgspec.json.Encoder().encode


class PurchasesAnswer(NamedTuple):
    """The answer about one user; `body` is its JSON, and `etag` identifies its content.

    `read_product_names` returns all products of the user from the same source, newest first. Call
    it before the event loop runs anything else. Raises ClosedPartition.
    """

    content: PurchasesContent
    meta: PurchasesMeta
    body: bytes
    etag: str
    read_product_names: Callable[[], list[str]]


class PurchasesAnswerBuilder:
    """Builds the answers about the purchases of users."""

    def __init__(
        self, settings: Settings, by_user: ByUserReader, fallback: Fallback, address: Callable[[], str]
    ) -> None:
        self._cursor_key = cursor.signing_key(settings)
        self._by_user, self._fallback, self._address = by_user, fallback, address

    def decode_cursor(self, user: str, query: PurchaseQuery) -> PagePosition | None:
        """Return the position after which the page begins. Raises Problem 400 invalid-cursor."""
        if query.cursor is None:
            return None
        return cursor.read(self._cursor_key, query.bound_to(user), query.cursor, PagePosition)

    def read(
        self, user: str, query: PurchaseQuery, after: PagePosition | None, partition: int, role: Role = "active"
    ) -> PurchasesAnswer:
        """Build the answer from the table. Raises Problem 503 too-stale, ClosedPartition."""
        freshness = self._by_user.freshness(partition)
        if query.group_by is None:
            purchases = self._by_user.purchases(user, partition, query.filter, after, query.limit + 1)
        else:
            # A group is sorted by its newest purchase, but it also contains the others.
            purchases = self._by_user.purchases(user, partition, query.filter)
        names = partial(self._by_user.product_names, user, partition)
        return self._build(user, query, after, purchases, freshness, role, names)

    async def read_standby(
        self, user: str, query: PurchaseQuery, after: PagePosition | None, partition: int
    ) -> PurchasesAnswer | None:
        """Build the answer from the copy on this worker; None if the copy may be incomplete.

        Raises Problem 503 too-stale, not-up-to-position.
        """

        def read() -> PurchasesAnswer:
            if query.after_order is not None and not self._by_user.has_order(user, partition, query.after_order):
                raise not_up_to_position()
            return self.read(user, query, after, partition, STANDBY)

        return await self._fallback.read_standby(partition, read)

    async def read_mysql(
        self, request: Request, user: str, query: PurchaseQuery, after: PagePosition | None
    ) -> PurchasesAnswer | None:
        """Build the answer from MySQL; None if the request may not read it or it does not answer.

        Raises Problem 503 not-up-to-position.
        """
        rows = await self._fallback.read_mysql(request, [user])
        if rows is None:
            metrics.FALLBACKS.labels(NOBODY).inc()
            return None
        return self.build(user, query, after, rows)

    def build(self, user: str, query: PurchaseQuery, after: PagePosition | None, rows: UserRows) -> PurchasesAnswer:
        """Build the answer from rows of MySQL. Raises Problem 503 not-up-to-position."""
        purchases = rows.purchases[user]
        if query.after_order is not None and query.after_order not in {str(row.order_id) for row in purchases}:
            raise not_up_to_position()
        # The rows were read after the request had arrived: no source is fresher.
        freshness = Freshness(rows.as_of, 0, "proven", None)
        purchases = [purchase for purchase in purchases if query.filter.matches(purchase)]
        names = partial(product_names, rows.purchases[user])
        return self._build(user, query, after, purchases, freshness, SOURCE, names)

    def _build(
        self, user: str, query: PurchaseQuery, after: PagePosition | None, purchases: list[Purchase],
        freshness: Freshness, role: Role, read_product_names: Callable[[], list[str]],
    ) -> PurchasesAnswer:  # fmt: skip
        require_fresh(query, freshness)
        content, page = build_content(user, query, after, purchases)
        if page.next_position is not None:
            content.next_cursor = cursor.write(self._cursor_key, query.bound_to(user), page.next_position)
        meta = build_meta(query, page, freshness, role, self._address())
        encoded = _encode(content)
        body = b'%b,"meta":%b}' % (encoded[:-1], _encode(meta))
        return PurchasesAnswer(content, meta, body, compute_answer_etag(encoded, meta), read_product_names)


def compute_answer_etag(content: bytes, meta: PurchasesMeta) -> str:
    """Return the ETag of an answer, which does not depend on its freshness and its worker."""
    return compute_etag(content + _encode_terms(meta.limit, meta.complete, meta.role))


@cache
def _encode_terms(limit: int, complete: bool, role: Role) -> bytes:
    return _encode((limit, complete, role))


class PurchasesFallback:
    """The further sources of one request: a standby copy, then MySQL."""

    __slots__ = ("_after", "_builder", "_query", "_request", "_respond", "_user")

    def __init__(
        self, builder: PurchasesAnswerBuilder, request: Request, user: str, query: PurchaseQuery,
        after: PagePosition | None, respond: Callable[[Request, PurchasesAnswer], Awaitable[ViewResponse]],
    ) -> None:  # fmt: skip
        self._builder, self._request, self._user, self._query = builder, request, user, query
        self._after, self._respond = after, respond

    @property
    def sources(self) -> tuple[AnswerSource, AnswerSource]:
        """The sources in the order in which they are tried."""
        return self._read_standby, self._read_mysql

    async def _read_standby(self, partition: int) -> ViewResponse | None:
        answer = await self._builder.read_standby(self._user, self._query, self._after, partition)
        return None if answer is None else await self._respond(self._request, answer)

    async def _read_mysql(self, _partition: int) -> ViewResponse | None:
        answer = await self._builder.read_mysql(self._request, self._user, self._query, self._after)
        return None if answer is None else await self._respond(self._request, answer)


def not_up_to_position() -> Problem:
    """Return the Problem of a source in which the order of `after_order` has not arrived."""
    detail = "no purchase of the order in after_order has arrived for this user yet"
    return Problem(503, "not-up-to-position", detail, parameter="after_order", retry_after_s=RETRY_AFTER_S)
