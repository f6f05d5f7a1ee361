"""OpenTelemetry spans for events and requests with a traceparent.

No other module imports OpenTelemetry.

Spans are created if the SDK is installed and its OTEL_* variables name an exporter. Otherwise
nothing is imported, and the functions here, which are chosen once at the start, do nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, TypeVar

from app.otel_settings import otel_exporter
from domain.events import Event, is_valid_traceparent

if TYPE_CHECKING:
    from aiohttp.web import Request
    from opentelemetry.trace import Span, Tracer

log = logging.getLogger(__name__)

#: Offset if it is known, key, and event.
LocatedEvent = tuple[int | None, bytes, Event]
Attributes = dict[str, str | int | None]
#: Traceparent, event id, and attributes of a span.
_Message = tuple[str, str, Attributes]

# https://opentelemetry.io/docs/specs/semconv/messaging/kafka/
SYSTEM, TOPIC, PARTITION = "messaging.system", "messaging.destination.name", "messaging.destination.partition.id"
OFFSET, GROUP, MESSAGE = "messaging.kafka.offset", "messaging.consumer.group.name", "messaging.message.id"
OPERATION, KIND = "messaging.operation.name", "messaging.operation.type"
METHOD, ROUTE, STATUS = "http.request.method", "http.route", "http.response.status_code"

_NO_SPANS = nullcontext()


class HasStatus(Protocol):
    """A response of HTTP."""

    @property
    def status(self) -> int:
        """The status code."""


R = TypeVar("R", bound=HasStatus)


def _create_tracer() -> Tracer | None:
    """Create the SDK's tracer; None if the SDK is not installed or no exporter is configured."""
    exporter = otel_exporter()
    if exporter is None:
        return None
    if not _is_installed():
        log.warning("OTEL_* names an exporter, but there is no SDK: pip install 'lately[otel]'")
        return None
    plugins = [plugin for plugin in entry_points(group="opentelemetry_traces_exporter") if plugin.name == exporter]
    if not plugins:
        log.warning("no spans are sent: the exporter %s of OpenTelemetry is not installed", exporter)
        return None
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have priority.
    resource = Resource({SERVICE_NAME: "lately"}).merge(Resource.create())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(plugins[0].load()()))
    return provider.get_tracer("lately")


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:
        return False


_TRACER = _create_tracer()


def processing(topic: str, partition: int, group: str, events: Iterable[LocatedEvent]) -> AbstractContextManager[None]:
    """Create a span for each event with a traceparent; it lasts as long as the context."""
    if _TRACER is None:
        return _NO_SPANS
    shared: Attributes = {
        TOPIC: topic, PARTITION: str(partition), GROUP: group, OPERATION: "process", KIND: "process",
    }  # fmt: skip
    messages: list[_Message] = [
        (event.traceparent, event.id, {OFFSET: offset}) for offset, _, event in events if event.traceparent
    ]
    return _spans(_TRACER, "CONSUMER", f"process {topic}", shared, messages)


def publishing(topic: str, rows: Iterable[tuple[str | None, str, int]]) -> AbstractContextManager[None]:
    """Create a span for each row (traceparent, event id, partition) with a traceparent.

    It ends when Kafka has acknowledged the events.
    """
    if _TRACER is None:
        return _NO_SPANS
    shared: Attributes = {TOPIC: topic, OPERATION: "publish", KIND: "send"}
    messages: list[_Message] = [
        (traceparent, event_id, {PARTITION: str(partition)}) for traceparent, event_id, partition in rows if traceparent
    ]
    return _spans(_TRACER, "PRODUCER", f"publish {topic}", shared, messages)


@contextmanager
def _spans(tracer: Tracer, kind: str, name: str, shared: Attributes, messages: list[_Message]) -> Iterator[None]:
    started_at = time.time_ns()
    yield
    for traceparent, event_id, attributes in messages:
        if is_valid_traceparent(traceparent):
            all_attributes = {SYSTEM: "kafka", MESSAGE: event_id, **shared, **attributes}
            _start_span(tracer, kind, name, traceparent, started_at, all_attributes).end()


def traced(
    handler: Callable[[Request], R | Coroutine[None, None, R]],
) -> Callable[[Request], R | Coroutine[None, None, R]]:
    """Wrap `handler` to create a span for each request with a traceparent.

    The span contains the route, not the address.
    """
    tracer = _TRACER
    if tracer is None:
        return handler

    def handle(request: Request) -> R | Coroutine[None, None, R]:
        traceparent = request.headers.get("traceparent")
        if traceparent is None or not is_valid_traceparent(traceparent):
            return handler(request)
        return handle_with_span(request, traceparent)

    async def handle_with_span(request: Request, traceparent: str) -> R:
        resource = request.match_info.route.resource
        route = "unknown" if resource is None else resource.canonical
        attributes: Attributes = {METHOD: request.method, ROUTE: route}
        name = f"{request.method} {route}"
        span = _start_span(tracer, "SERVER", name, traceparent, time.time_ns(), attributes)
        try:
            result = handler(request)
            response: R = await result if isinstance(result, Coroutine) else result
            span.set_attribute(STATUS, response.status)
            return response
        finally:
            span.end()

    return handle


def _start_span(
    tracer: Tracer, kind: str, name: str, traceparent: str, started_at: int, attributes: Attributes
) -> Span:
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
    set_attributes = {key: value for key, value in attributes.items() if value is not None}
    return tracer.start_span(name, parent, kind=SpanKind[kind], attributes=set_attributes, start_time=started_at)
