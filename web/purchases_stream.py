"""A user's purchases as they change: GET /v1/users/{user_id}/purchases/stream, server-sent events."""

from __future__ import annotations

import asyncio
import math
import time

import aiohttp
from aiohttp.web import Request, Response, StreamResponse
from yarl import URL

from app.core import app, settings
from chunks import ClosedPartition
from tables import by_user
from web import purchase_query
from web.http import parameters
from web.http.access import EXPIRES_AT
from web.http.parameters import USER
from web.http.problems import Problem, request_id
from web.http.routes import EVENTS, Parameter, Route
from web.problem_types import QUERY, ROUTED
from web.purchase_query import PurchaseQuery
from web.purchases import said
from web.routing import RETRY_AFTER_S, asking, kept, routed

#: Events are small: whoever has not taken one after so long is not reading.
WRITE_S = 10.0
RECONNECT_MS = 1000

_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_EVENT = b"event: purchases\nretry: %d\nid: %%b\ndata: %%b\n\n" % RECONNECT_MS
_HEARTBEAT = b":\n\n"

_slots = asyncio.Semaphore(settings.streams)


@Route(
    "/v1/users/{user_id}/purchases/stream",
    "The user's purchases, sent again after each change (server-sent events)",
    media=(EVENTS,),
    parameters=(
        USER,
        *purchase_query.SELECTION,
        Parameter("Last-Event-ID", "The last event that was received", {"type": "string"}, location="header"),
    ),
    problems=("invalid-user-id", *QUERY, *ROUTED, "too-many-streams"),
)
async def stream_purchases(context: object, request: Request) -> StreamResponse:
    """The answer of GET …/purchases as an event: now, unless the client has it, and whenever it changes."""
    user = parameters.read_user_id(request, 3)
    query = purchase_query.read(request, purchase_query.SELECTION_NAMES, settings.recent_limit)
    if request.method == "HEAD":
        return Response(headers=_HEADERS)
    if _slots.locked():
        detail = f"this worker has {settings.streams} streams open, the most that LATELY_STREAMS allows"
        raise Problem(503, "too-many-streams", detail, retry_after_s=RETRY_AFTER_S)
    async with _slots:
        return await routed(
            request, by_user.by_user, user.encode(), lambda partition: _tell(request, user, query, partition), _pass_on
        )


async def _tell(request: Request, user: str, query: PurchaseQuery, partition: int) -> StreamResponse:
    """Write events until the client goes, its token ends, or this worker gives the partition up.

    Then the client asks again.
    """
    ends = request.get(EXPIRES_AT, math.inf)
    # 1. Watch, 2. read, 3. write, 4. wait: what is committed after 2 ends the wait of 4.
    with by_user.watch(user, partition) as watch:
        answer = said(user, query, None, partition)
        response = await _begin(request, _HEADERS)
        seen = request.headers.get("Last-Event-ID")
        try:
            while True:
                if answer.etag == seen:
                    await _write(request, response, _HEARTBEAT)
                else:
                    await _write(request, response, _EVENT % (answer.etag.encode(), answer.body))
                seen = answer.etag
                await watch.wait(max(0.0, min(settings.heartbeat_s, ends - time.time())))
                if time.time() >= ends:
                    return response
                answer = said(user, query, None, partition)
        except (ClosedPartition, ConnectionError):
            return response


async def _pass_on(request: Request, owner: URL) -> StreamResponse:
    """Hand on what the owner of the partition writes."""
    # An owner that is silent for longer than its heartbeat is gone.
    timeout = aiohttp.ClientTimeout(total=None, sock_read=2 * settings.heartbeat_s + WRITE_S)
    async with asking(request, owner, timeout) as answer:
        if answer.status != 200:
            return Response(body=await answer.read(), status=answer.status, headers=kept(answer))
        response = await _begin(request, kept(answer))
        try:
            while True:
                read = await app.wait(answer.content.readany())
                if read.stopped or not read.result:
                    return response
                await _write(request, response, read.result)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
            return response


async def _begin(request: Request, headers: dict[str, str]) -> StreamResponse:
    response = StreamResponse(headers={**headers, "X-Request-ID": request_id(request)})
    await response.prepare(request)
    return response


async def _write(request: Request, response: StreamResponse, content: bytes) -> None:
    try:
        await asyncio.wait_for(response.write(content), WRITE_S)
    except asyncio.TimeoutError:
        # Without this the end of the answer would wait for the client too.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionAbortedError("the client does not read") from None
