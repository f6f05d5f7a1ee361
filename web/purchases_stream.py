"""GET /v1/users/{user_id}/purchases/stream: the purchases of a user, as server-sent events."""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial

import aiohttp
from aiohttp.web import Request, Response, StreamResponse
from yarl import URL

from chunks import ClosedPartition
from web import purchase_query
from web.context import WebContext
from web.http import parameters
from web.http.access import EXPIRES_AT
from web.http.handlers import ViewResponse
from web.http.parameters import USER
from web.http.problems import Problem, request_id
from web.http.routes import EVENTS, Parameter, Route
from web.problem_types import QUERY, ROUTED
from web.purchase_query import SELECTION, SELECTION_NAMES, PurchaseQuery
from web.routing import RETRY_AFTER_S, forwarded_headers

#: A client that does not receive an event within this time does not read: events are small.
WRITE_TIMEOUT_S = 10.0
RECONNECT_MS = 1000

_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_EVENT = b"event: purchases\nretry: %d\nid: %%b\ndata: %%b\n\n" % RECONNECT_MS
_HEARTBEAT = b":\n\n"


@Route(
    "/v1/users/{user_id}/purchases/stream",
    "The user's purchases, sent again after each change (server-sent events)",
    media=(EVENTS,),
    parameters=(
        USER,
        *SELECTION,
        Parameter("Last-Event-ID", "The last event that was received", {"type": "string"}, location="header"),
    ),
    problems=("invalid-user-id", *QUERY, *ROUTED, "too-many-streams"),
)
async def stream_purchases(context: WebContext, request: Request) -> ViewResponse:
    """Send the response of GET …/purchases as an event: now, and after each change.

    The first event is omitted if the client has it.
    """
    settings = context.settings
    user = parameters.read_user_id(request, 3)
    query = purchase_query.read(request, SELECTION_NAMES, settings.recent_limit)
    if request.method == "HEAD":
        return Response(headers=_HEADERS)
    if context.stream_slots.locked():
        detail = f"this worker has {settings.streams} streams open, the most that LATELY_STREAMS allows"
        raise Problem(503, "too-many-streams", detail, retry_after_s=RETRY_AFTER_S)
    async with context.stream_slots:
        return await context.router.respond_later(
            request, "by_user", user.encode(), partial(_send_events, context, request, user, query),
            partial(_forward_events, context),
        )  # fmt: skip


async def _send_events(
    context: WebContext, request: Request, user: str, query: PurchaseQuery, partition: int
) -> StreamResponse:
    """Send events until the client is gone, its token expires, or the partition is closed.

    1. Watch the purchases. 2. Read them. 3. Send them. 4. Wait: a change that is committed after 2
    ends the wait.
    """
    expiry = request.get(EXPIRES_AT, math.inf)
    # 1.
    with context.by_user.watch(user, partition) as watch:
        # 2.
        answer = context.purchases.read(user, query, None, partition)
        response = await _start_stream(request, _HEADERS)
        sent_etag = request.headers.get("Last-Event-ID")
        try:
            while True:
                # 3.
                if answer.etag == sent_etag:
                    await _write(request, response, _HEARTBEAT)
                else:
                    await _write(request, response, _EVENT % (answer.etag.encode(), answer.body))
                sent_etag = answer.etag
                # 4.
                await watch.wait(max(0.0, min(context.settings.heartbeat_s, expiry - time.time())))
                if time.time() >= expiry:
                    return response
                answer = context.purchases.read(user, query, None, partition)
        except (ClosedPartition, ConnectionError):
            return response


async def _forward_events(context: WebContext, request: Request, owner: URL) -> StreamResponse:
    """Send the events that the owner of the partition sends."""
    # An owner that sends nothing for longer than its heartbeat does not run any more.
    timeout = aiohttp.ClientTimeout(total=None, sock_read=2 * context.settings.heartbeat_s + WRITE_TIMEOUT_S)
    async with context.router.open_response(request, owner, timeout) as source:
        headers = forwarded_headers(source)
        if source.status != 200:
            return Response(body=await source.read(), status=source.status, headers=headers)
        response = await _start_stream(request, headers)
        try:
            while content := await context.worker.wait(source.content.readany()):
                await _write(request, response, content)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
            pass  # the client connects again
        return response


async def _start_stream(request: Request, headers: dict[str, str]) -> StreamResponse:
    response = StreamResponse(headers={**headers, "X-Request-ID": request_id(request)})
    await response.prepare(request)
    return response


async def _write(request: Request, response: StreamResponse, content: bytes) -> None:
    try:
        await asyncio.wait_for(response.write(content), WRITE_TIMEOUT_S)
    except asyncio.TimeoutError:
        # Otherwise the end of the response would wait for the client too.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionAbortedError("the client does not read") from None
