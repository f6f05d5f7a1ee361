"""The gate in front of every table read: answer here, ask the owner once, or say that it is too early.

Never an empty list for want of a table: while tables recover the answer is 503 with Retry-After.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp.web import Request, Response
from faust.types import TP
from yarl import URL

from app.core import app, settings
from app.topics import partition_of
from chunks import ClosedPartition
from chunks.table import Table
from web.access import HOP
from web.errors import Problem

RETRY_AFTER_S = 1

#: Response headers that survive the hop from the owner of a partition.
_KEPT = ("Content-Type", "Retry-After", "Cache-Control", "Content-Security-Policy", "X-Content-Type-Options")


def ready() -> bool:
    """Whether the tables of this worker are complete."""
    return app.tables.actives_ready and not app.rebalancing and not app.should_stop


async def routed(request: Request, table: Table, key: bytes, answer: Callable[[int], Response]) -> Response:
    """Call `answer` with the partition of `key` if this worker owns it, else ask the worker that does.

    Raises Problem: 503 recovering or owner-away (with Retry-After), 508 routing-loop.
    """
    if not ready():
        raise _recovering()
    partition, topic = partition_of(key, settings.partitions), table.changelog
    if TP(topic, partition) in app.assignor.assigned_actives():
        try:
            return answer(partition)
        except ClosedPartition:
            raise _recovering() from None
    if HOP in request.headers:
        raise Problem(508, "routing-loop", "the worker that was asked to answer does not own this partition either")
    return await _forward(request, _owner(topic, partition))


def _recovering() -> Problem:
    return Problem(503, "recovering", "the tables are being recovered, ask again soon", retry_after_s=RETRY_AFTER_S)


def _owner(topic: str, partition: int) -> URL:
    for url, partitions in app.assignor.table_metadata(topic).items():
        if partition in partitions.get(topic, ()):
            return URL(url)
    raise Problem(503, "owner-away", "no worker owns this partition yet, ask again soon", retry_after_s=RETRY_AFTER_S)


async def _forward(request: Request, owner: URL) -> Response:
    url = URL(f"{str(owner).rstrip('/')}{request.rel_url.raw_path_qs}", encoded=True)
    headers = {"Accept": request.headers.get("Accept", "*/*"), "X-Request-ID": request["request_id"], HOP: "1"}
    if "Authorization" in request.headers:
        headers["Authorization"] = request.headers["Authorization"]
    deadline = aiohttp.ClientTimeout(total=settings.forward_ms / 1000)
    try:
        async with app.http_client.request(
            request.method, url, headers=headers, timeout=deadline, allow_redirects=False
        ) as response:
            kept = {name: response.headers[name] for name in _KEPT if name in response.headers}
            return Response(body=await response.read(), status=response.status, headers=kept)
    except (aiohttp.ClientError, asyncio.TimeoutError):
        raise Problem(
            503, "owner-away", "the worker that owns this partition does not answer", retry_after_s=RETRY_AFTER_S
        ) from None
