"""OpenTelemetry, the only module that knows it: spans for what carries a traceparent.

It is there when the SDK is installed and its OTEL_* variables name an exporter. Otherwise nothing of it is imported,
and what is decided here once, at the start, does nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import CoroutineType
from typing import Any

from app.otel_settings import otel_exporter
from domain.events import Event, is_valid_traceparent

log = logging.getLogger(__name__)

#: An event, and where it lies, as far as that is known.
Said = tuple[int | None, bytes, Event]

# https://opentelemetry.io/docs/specs/semconv/messaging/kafka/
SYSTEM, TOPIC, PARTITION = "messaging.system", "messaging.destination.name", "messaging.destination.partition.id"
OFFSET, GROUP, MESSAGE = "messaging.kafka.offset", "messaging.consumer.group.name", "messaging.message.id"
OPERATION, KIND = "messaging.operation.name", "messaging.operation.type"
METHOD, ROUTE, STATUS = "http.request.method", "http.route", "http.response.status_code"

_NOTHING = nullcontext()


def _tracer() -> Any:
    """The SDK's tracer, None where it is not installed or not asked for."""
    exporter = otel_exporter()
    if exporter is None:
        return None
    if not _installed():
        log.warning("OTEL_* names an exporter, but there is no SDK: pip install 'lately[otel]'")
        return None
    found = [one for one in entry_points(group="opentelemetry_traces_exporter") if one.name == exporter]
    if not found:
        log.warning("no spans are sent: the exporter %s of OpenTelemetry is not installed", exporter)
        return None
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES count more.
    resource = Resource({SERVICE_NAME: "lately"}).merge(Resource.create())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(found[0].load()()))
    return provider.get_tracer("lately")


def _installed() -> bool:
    try:
        return find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:
        return False


_TRACER = _tracer()


def processing(topic: str, partition: int, group: str, events: Iterable[Said]) -> AbstractContextManager[None]:
    """A span for each of the events that carries a traceparent, as long as what they change is worked out."""
    if _TRACER is None:
        return _NOTHING
    about = {TOPIC: topic, PARTITION: str(partition), GROUP: group, OPERATION: "process", KIND: "process"}
    traced = [(event.traceparent, event.id, {OFFSET: offset}) for offset, _, event in events if event.traceparent]
    return _timed("CONSUMER", f"process {topic}", about, traced)


def publishing(topic: str, rows: Iterable[tuple[str | None, str, int]]) -> AbstractContextManager[None]:
    """The same for rows (traceparent, event id, partition) until Kafka has acknowledged their events."""
    if _TRACER is None:
        return _NOTHING
    about = {TOPIC: topic, OPERATION: "publish", KIND: "send"}
    traced = [(parent, name, {PARTITION: str(partition)}) for parent, name, partition in rows if parent]
    return _timed("PRODUCER", f"publish {topic}", about, traced)


@contextmanager
def _timed(kind: str, name: str, about: dict, traced: list[tuple[str, str, dict]]) -> Iterator[None]:
    began = time.time_ns()
    yield
    for traceparent, message, more in traced:
        if is_valid_traceparent(traceparent):
            attributes = {SYSTEM: "kafka", MESSAGE: message, **about, **more}
            _span(kind, name, traceparent, began, attributes).end()


def traced(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`answer` with a span for each request that carries a traceparent; of its address only the route is told."""
    if _TRACER is None:
        return answer

    def begin(request: Any) -> Any:
        traceparent = request.headers.get("traceparent")
        return spanned(request, traceparent) if is_valid_traceparent(traceparent) else answer(request)

    async def spanned(request: Any, traceparent: str) -> Any:
        resource = request.match_info.route.resource
        route = "unknown" if resource is None else resource.canonical
        about = {METHOD: request.method, ROUTE: route}
        span = _span("SERVER", f"{request.method} {route}", traceparent, time.time_ns(), about)
        try:
            answered = answer(request)
            response = await answered if isinstance(answered, CoroutineType) else answered
            span.set_attribute(STATUS, response.status)
            return response
        finally:
            span.end()

    return begin


def _span(kind: str, name: str, traceparent: str, began: int, attributes: dict) -> Any:
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
    return _TRACER.start_span(name, parent, kind=SpanKind[kind], attributes=attributes, start_time=began)
