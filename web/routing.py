"""The gate in front of every table read: answer here, ask the owner once, or say that it is too early.

Never an empty list for want of a table: while tables recover the answer is 503 with Retry-After.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from types import CoroutineType

import aiohttp
from aiohttp.web import Request, Response, StreamResponse
from faust.types import TP
from yarl import URL

from app.core import app, settings
from app.topics import partition_of
from chunks import ClosedPartition
from chunks.table import Table
from web.access import HOP
from web.errors import Answered, Problem

RETRY_AFTER_S = 1

#: Headers that survive the hop to the owner of a partition, and back; so do all of our own.
_ASKED = ("Accept", "Authorization", "If-None-Match", "Last-Event-ID", "traceparent")
_KEPT = (
    "Content-Type", "Retry-After", "Cache-Control", "ETag", "Link", "Content-Security-Policy", "X-Content-Type-Options"
)  # fmt: skip
_OURS = "lately-"


def ready() -> bool:
    """Whether the tables of this worker are complete."""
    return app.tables.actives_ready and not app.rebalancing and not app.should_stop


Answer = Callable[[int], Answered]
Forward = Callable[[Request, URL], Coroutine[None, None, StreamResponse]]


def routed(request: Request, table: Table, key: bytes, answer: Answer, forward: Forward | None = None) -> Answered:
    """Call `answer` with the partition of `key` if this worker owns it, else `forward` to the worker that does.

    Raises Problem: 503 recovering or owner-away (with Retry-After), 508 routing-loop.
    """
    partition = partition_of(key, settings.partitions)
    owner = owner_of(request, table, partition)
    if owner is not None:
        return (forward or forwarded)(request, owner)
    try:
        answered = answer(partition)
    except ClosedPartition:
        raise recovering() from None
    return _while_open(answered) if isinstance(answered, CoroutineType) else answered


async def _while_open(answered: Awaitable[StreamResponse]) -> StreamResponse:
    try:
        return await answered
    except ClosedPartition:
        raise recovering() from None


def owner_of(request: Request, table: Table, partition: int) -> URL | None:
    """The worker to ask about a partition, None where that is this one. Raises Problem as `routed` does."""
    if not ready():
        raise recovering()
    topic = table.changelog
    if app.assignor.is_active(TP(topic, partition)):
        return None
    if HOP in request.headers:
        raise Problem(508, "routing-loop", "the worker that was asked to answer does not own this partition either")
    for url, partitions in app.assignor.table_metadata(topic).items():
        if partition in partitions.get(topic, ()):
            return URL(url)
    raise Problem(503, "owner-away", "no worker owns this partition yet, ask again soon", retry_after_s=RETRY_AFTER_S)


def recovering() -> Problem:
    """The answer while there is no table to answer from."""
    return Problem(503, "recovering", "the tables are being recovered, ask again soon", retry_after_s=RETRY_AFTER_S)


async def forwarded(request: Request, owner: URL, wait_ms: int = 0, path: str | None = None) -> Response:
    """What `owner` answers to the request, or to `path`, with `wait_ms` more time than usual.

    Raises Problem 503 owner-away.
    """
    within_s = (settings.forward_ms + wait_ms) / 1000
    async with asking(request, owner, aiohttp.ClientTimeout(total=within_s), path) as answer:
        return Response(body=await answer.read(), status=answer.status, headers=kept(answer))


@asynccontextmanager
async def asking(
    request: Request, owner: URL, timeout: aiohttp.ClientTimeout, path: str | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer of `owner` to the request (or to `path`), to be read; Problem owner-away may come meanwhile."""
    url = URL(f"{str(owner).rstrip('/')}{path or request.rel_url.raw_path_qs}", encoded=True)
    headers = {name: request.headers[name] for name in _ASKED if name in request.headers}
    headers |= {"X-Request-ID": request["request_id"], HOP: "1"}
    asked = app.http_client.get(url, headers=headers, timeout=timeout, allow_redirects=False)
    try:
        async with await asyncio.wait_for(asked, timeout.total or settings.forward_ms / 1000) as answer:
            yield answer
    except (aiohttp.ClientError, asyncio.TimeoutError):
        raise Problem(
            503, "owner-away", "the worker that owns this partition does not answer", retry_after_s=RETRY_AFTER_S
        ) from None


def kept(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """The headers of another worker's answer that are handed on."""
    ours = [name for name in answer.headers if name.lower().startswith(_OURS)]
    return {name: answer.headers[name] for name in (*_KEPT, *ours) if name in answer.headers}
