"""The gate in front of every table read: answer here, ask the owner once, or say that it is too early.

Never an empty list for want of a table: where nobody can answer it is 503 with Retry-After.
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
from app.kafka import groups
from chunks import ClosedPartition, Table
from domain.partitioning import partition_of
from web.http.accept import wants_fragment
from web.http.access import HOP_HEADER
from web.http.problems import HandlerResult, Problem, request_id

RETRY_AFTER_S = 1

#: What an answer carries that is none, because the worker does not have what was asked for: whoever forwarded the
#: request may look elsewhere.
UNSERVED = "Lately-Unserved"

#: Headers that survive the hop to the owner of a partition, and back; so do all of our own.
_ASKED = ("Accept", "Authorization", "If-None-Match", "Last-Event-ID", "traceparent")
_KEPT = (
    "Content-Type", "Retry-After", "Cache-Control", "ETag", "Link", "WWW-Authenticate", "Content-Security-Policy",
    "Referrer-Policy", "X-Content-Type-Options",
)  # fmt: skip
_OURS = "lately-"


def ready() -> bool:
    """Whether the tables of this worker are complete."""
    return app.tables.actives_ready and not app.rebalancing and not app.should_stop


Answer = Callable[[int], HandlerResult]
Forward = Callable[[Request, URL], Coroutine[None, None, StreamResponse]]
#: What is done for want of an owner, with the reason and the partition.
Instead = Callable[[Problem, int], Coroutine[None, None, StreamResponse]]


def routed(
    request: Request,
    table: Table,
    key: bytes,
    answer: Answer,
    forward: Forward | None = None,
    instead: Instead | None = None,
) -> HandlerResult:
    """Call `answer` with the partition of `key` if this worker owns it, else `forward` to the worker that does.

    Where neither can answer now, `instead` may.
    Raises Problem: 421 agent-elsewhere, 503 recovering or owner-away (with Retry-After), 508 routing-loop.
    """
    partition = partition_of(key, settings.partitions)
    try:
        owner = owner_of(request, table, partition)
        if owner is None:
            answered = answer(partition)
            return _unless_closed(answered, instead, partition) if isinstance(answered, CoroutineType) else answered
    except ClosedPartition:
        return _otherwise(recovering(), instead, partition)
    except Problem as problem:
        if UNSERVED not in problem.headers or problem.status == 508:
            raise
        return _otherwise(problem, instead, partition)
    forward = forward or forwarded
    return forward(request, owner) if instead is None else _by_owner_or(request, owner, forward, instead, partition)


def _otherwise(problem: Problem, instead: Instead | None, partition: int) -> HandlerResult:
    if instead is None:
        raise problem from None
    return instead(problem, partition)


async def _unless_closed(
    answered: Awaitable[StreamResponse], instead: Instead | None, partition: int
) -> StreamResponse:
    try:
        return await answered
    except ClosedPartition:
        return await _otherwise(recovering(), instead, partition)


async def _by_owner_or(
    request: Request, owner: URL, forward: Forward, instead: Instead, partition: int
) -> StreamResponse:
    try:
        response = await forward(request, owner)
    except Problem as problem:
        return await instead(problem, partition)
    if UNSERVED not in response.headers:
        return response
    return await instead(heard(response.headers[UNSERVED]), partition)


def owner_of(request: Request, table: Table, partition: int) -> URL | None:
    """The worker to ask about a partition, None where that is this one.

    Raises Problem as `routed` does, and 421 agent-elsewhere.
    """
    topic = table.changelog
    here = ready()
    if app.assignor.is_active(TP(topic, partition)):
        if here:
            app.freeze_guard.check()
            return None
        raise recovering()
    demand_kept(table)
    if HOP_HEADER in request.headers:
        raise unserved("routing-loop") if here else recovering()
    # While partitions are given out anew, those who have not heard of it yet go on answering for theirs.
    for url, partitions in app.assignor.table_metadata(topic).items():
        if partition in partitions.get(topic, ()):
            return URL(url)
    raise unserved("owner-away") if here else recovering()


_WHY = {
    "recovering": (503, "the tables are being recovered, ask again soon"),
    "owner-away": (503, "the worker that owns this partition does not answer, ask again soon"),
    "routing-loop": (508, "the worker that was asked to answer does not own this partition either"),
}


def unserved(code: str) -> Problem:
    """The answer of a worker that does not have what was asked for: recovering, owner-away or routing-loop."""
    status, detail = _WHY[code]
    return Problem(
        status, code, detail, retry_after_s=RETRY_AFTER_S if status == 503 else None, headers={UNSERVED: code}
    )


def heard(code: str) -> Problem:
    """The same where another worker has said so; two who do not agree on the owner will soon."""
    return unserved("recovering" if code == "recovering" else "owner-away")


def demand_kept(table: Table) -> None:
    """Raise Problem 421 agent-elsewhere where this process does not run the agent that writes the table."""
    if table.name not in app.tables:
        agent = groups.writer_agent(table.name, table.source_topic, app.source_topics)
        raise Problem(
            421,
            "agent-elsewhere",
            f"this process does not run the agent {agent}: ask one that does, or add it to LATELY_AGENTS, "
            f"which here is {','.join(app.selected_agents)}",
        )


def recovering() -> Problem:
    """The answer while there is no table to answer from."""
    return unserved("recovering")


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
    if path or wants_fragment(request):
        headers.pop("If-None-Match", None)  # what the client has is not what is asked for here, or is no JSON
    headers |= {"X-Request-ID": request_id(request), HOP_HEADER: "1"}
    asked = app.http_client.get(url, headers=headers, timeout=timeout, allow_redirects=False)
    try:
        async with await asyncio.wait_for(asked, timeout.total or settings.forward_ms / 1000) as answer:
            yield answer
    except (aiohttp.ClientError, asyncio.TimeoutError):
        raise unserved("owner-away") from None
    except RuntimeError:
        if app.http_client.closed:  # this worker stops
            raise unserved("owner-away") from None
        raise


def kept(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """The headers of another worker's answer that are handed on."""
    ours = [name for name in answer.headers if name.lower().startswith(_OURS)]
    return {name: answer.headers[name] for name in (*_KEPT, *ours) if name in answer.headers}
