"""GET /v1/orders/{order_id}/trace: the path of an order from MySQL to this worker."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar
from urllib.parse import quote

import msgspec
from aiohttp.web import Request, Response

from app.control.source_state import SourceStates
from app.errors import BadSource, KafkaAway, ServerAway
from app.kafka.records import open_topic_records
from domain.diagnosis import UNKNOWN
from domain.partitioning import partition_of
from domain.purchases import Purchase
from source.order_trace import OrderTrace, Tracer
from web.context import WebContext
from web.http import parameters
from web.http.handlers import ViewResponse
from web.http.parameters import USER
from web.http.prebuilt import PRIVATE_JSON_HEADERS
from web.http.problems import Problem
from web.http.routes import Parameter, Route
from web.problem_types import ROUTED
from web.resource_names import ORDER, read_order_id
from web.routing import RETRY_AFTER_S
from web.schemas import OrderTraceResponse

log = logging.getLogger(__name__)

T = TypeVar("T")

#: The owner of the user has this much more time, because it reads MySQL and Kafka.
EXTRA_MS = 10_000

_encode = msgspec.json.Encoder().encode


@Route(
    "/v1/orders/{order_id}/trace",
    "The path of an order, and in one sentence why it is not visible",
    response=OrderTraceResponse,
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
async def get_order_trace(context: WebContext, request: Request) -> ViewResponse:
    """Return the path of an order, limited to one user: `user_id`, or the user of the order."""
    parameters.require_known(request, "user_id")
    order = read_order_id(request, 3)
    user = parameters.read_query_user_id(request, "user_id")
    path = None
    if user is None:
        user = await _with_tracer(context, partial(_find_user, order))
        path = f"{request.rel_url.raw_path}?user_id={quote(user, safe='')}"

    async def trace_here(_partition: int) -> Response:
        return await _with_tracer(context, partial(_trace, order, user))

    forward = partial(context.router.forward, wait_ms=EXTRA_MS, path=path)
    return await context.router.respond_later(request, "by_user", user.encode(), trace_here, forward)


async def _find_user(order_id: str, tracer: Tracer) -> str:
    user = (await tracer.find_owner(order_id)).user_id
    if user is None:
        raise _unknown_order(await tracer.trace_order(order_id))
    return user


async def _trace(order_id: str, user_id: str, tracer: Tracer) -> Response:
    trace = await tracer.trace_order(order_id, user_id, only_user=True)
    if trace.outcome == UNKNOWN:
        raise _unknown_order(trace)
    return Response(body=_encode(trace.document), headers=PRIVATE_JSON_HEADERS)


async def _with_tracer(context: WebContext, use: Callable[[Tracer], Awaitable[T]]) -> T:
    """Return the result of `use`, which reads MySQL and Kafka.

    Raises Problem 503 source-away, log-away.
    """

    async def read_purchases(user_id: str) -> tuple[int, list[Purchase]]:
        partition = partition_of(user_id.encode(), context.settings.partitions)
        # The position is read first: the purchases may also contain the events of later offsets.
        position = context.by_user.position(partition) or 0
        return position, context.by_user.registers(user_id, partition)

    async def read_states() -> SourceStates:
        return SourceStates(status=context.source_status.newest, snapshot=context.source_status.snapshot)

    try:
        async with context.trace_slots, open_topic_records(context.settings) as records:
            run_in_thread, borrow = context.fallback.mysql.read, context.fallback.connections.borrow
            return await use(
                Tracer(context.settings, context.topics, records, read_purchases, read_states, run_in_thread, borrow)
            )
    except (ServerAway, BadSource) as exc:
        log.warning("a trace failed: %s", exc)
        is_kafka = isinstance(exc, KafkaAway)
        code, server = ("log-away", "Kafka") if is_kafka else ("source-away", "the shop's database")
        detail = f"{server} cannot be asked, the worker's log says why"
        raise Problem(503, code, detail, retry_after_s=RETRY_AFTER_S) from None


def _unknown_order(trace: OrderTrace) -> Problem:
    return Problem(404, "unknown-order", trace.diagnosis)
