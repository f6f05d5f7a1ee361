"""The life of an order, for programs: GET /v1/orders/{order_id}/trace; `lately trace` says the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar
from urllib.parse import quote

import msgspec
from aiohttp.web import Request, Response, StreamResponse

from app.control import source_state
from app.core import app, settings
from app.errors import BadSource, KafkaAway, ServerAway
from app.kafka.records import open_topic_records
from domain.diagnosis import UNKNOWN
from domain.partitioning import partition_of
from domain.purchases import Purchase
from source.order_trace import OrderTrace, Tracer
from tables import by_user
from web import fallback, schemas
from web.http import parameters
from web.http.parameters import USER
from web.http.prebuilt import PRIVATE_JSON_HEADERS
from web.http.problems import Problem
from web.http.routes import Parameter, Route
from web.problem_types import ROUTED
from web.resource_names import ORDER, read_order_id
from web.routing import RETRY_AFTER_S, forwarded, routed

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: The owner of the user asks MySQL and Kafka.
MORE_MS = 10_000
#: The traces that are looked for at once: each has a consumer of its own.
_open = asyncio.Semaphore(4)

_encode = msgspec.json.Encoder().encode


@Route(
    "/v1/orders/{order_id}/trace",
    "The path of an order, and in one sentence why it is not visible",
    response=schemas.OrderTraceResponse,
    parameters=(
        ORDER,
        Parameter("user_id", "The user of the order; required with a user's token", USER.schema, example="ann"),
    ),
    problems=(
        *("invalid-order-id", "invalid-user-id", "unknown-parameter", "unknown-order", *ROUTED),
        *("source-away", "log-away"),
    ),
    names_user=True,
)
async def get_order_trace(context: object, request: Request) -> StreamResponse:
    """The life of an order as far as it is one user's: that of `user_id`, or the one who has it."""
    parameters.require_known(request, "user_id")
    order = read_order_id(request, 3)
    user = parameters.read_query_user_id(request, "user_id")
    path = None
    if user is None:
        user = await _asking_others(lambda tracer: _whose(tracer, order))
        path = f"{request.rel_url.raw_path}?user_id={quote(user, safe='')}"
    return await routed(
        request,
        by_user.by_user,
        user.encode(),
        lambda _: _asking_others(lambda tracer: _answer(tracer, order, user)),
        partial(forwarded, wait_ms=MORE_MS, path=path),
    )


async def _whose(tracer: Tracer, order_id: str) -> str:
    user = (await tracer.find_owner(order_id)).user_id
    if user is None:
        raise _unknown(await tracer.trace_order(order_id))
    return user


async def _answer(tracer: Tracer, order_id: str, user_id: str) -> Response:
    traced = await tracer.trace_order(order_id, user_id, only_user=True)
    if traced.outcome == UNKNOWN:
        raise _unknown(traced)
    return Response(body=_encode(traced.document), headers=PRIVATE_JSON_HEADERS)


async def _asking_others(ask: Callable[[Tracer], Awaitable[T]]) -> T:
    """What `ask` finds out from MySQL and Kafka. Raises Problem 503 source-away, log-away."""
    try:
        async with _open, open_topic_records(settings) as log:
            return await ask(Tracer(settings, app.declared_topics, log, _known, _told, fallback.read))
    except (ServerAway, BadSource) as exc:
        logger.warning("a trace cannot be told: %s", exc)
        is_kafka = isinstance(exc, KafkaAway)
        code, what = ("log-away", "Kafka") if is_kafka else ("source-away", "the shop's database")
        detail = f"{what} cannot be asked, the worker's log says why"
        raise Problem(503, code, detail, retry_after_s=RETRY_AFTER_S) from None


async def _known(user_id: str) -> tuple[int, list[Purchase]]:
    partition = partition_of(user_id.encode(), settings.partitions)
    position = by_user.by_user.position(partition) or 0  # first: what is applied meanwhile is there, but not promised
    return position, by_user.registers(user_id, partition)


async def _told() -> source_state.SourceStates:
    return source_state.SourceStates(status=app.source_status.newest, snapshot=app.source_status.snapshot)


def _unknown(traced: OrderTrace) -> Problem:
    return Problem(404, "unknown-order", traced.diagnosis)
