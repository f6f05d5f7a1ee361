"""Text output of `lately trace`."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from source.order_trace import OrderTrace


class StageDocument(msgspec.Struct):
    """One stage of a purchase; `ms` since the previous stage."""

    stage: str
    at: str
    ms: float | None
    event_id: str = ""
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    type: str | None = None
    traceparent: str | None = None
    worker: str | None = None


class PurchaseDocument(msgspec.Struct):
    """A purchase of the order and its stages."""

    product_name: str
    diagnosis: str
    version: int | None
    stages: list[StageDocument]


class MetaDocument(msgspec.Struct):
    """Cost of the trace."""

    records_fetched: int
    took_ms: float


class TraceDocument(msgspec.Struct):
    """The JSON document of a trace, as far as the text output needs it."""

    order_id: str
    user_id: str | None
    purchases: list[PurchaseDocument]
    meta: MetaDocument


def read_document(trace: OrderTrace) -> TraceDocument:
    """Convert the document of a trace to typed fields."""
    return msgspec.convert(trace.document, TraceDocument)


def format_trace(trace: OrderTrace, with_stages: bool) -> str:
    """Format the diagnosis of a trace, after all its purchases and stages if `with_stages`."""
    document = read_document(trace)
    lines = []
    if with_stages:
        lines.append(f"order {document.order_id} of user {document.user_id or '(unknown)'}")
        for purchase in document.purchases:
            version = "" if purchase.version is None else f", version {purchase.version}"
            lines.append(f"\n{purchase.product_name}{version}")
            lines += [f"  {format_stage(stage)}" for stage in purchase.stages]
            lines.append(f"  {purchase.diagnosis}")
    cost = f"({document.meta.records_fetched} records fetched, {document.meta.took_ms:.0f} ms)"
    return "\n".join([*lines, f"\n{trace.diagnosis}\n{cost}"])


def new_lines(trace: OrderTrace, printed: set[tuple[str, str]]) -> Iterator[str]:
    """Yield the stages and diagnoses that `printed` does not contain, and add them to it."""
    for purchase in read_document(trace).purchases:
        lines = [format_stage(stage) for stage in purchase.stages]
        # The diagnosis without its waiting time, which changes with every poll.
        reason = purchase.diagnosis.split(":")[0].rpartition(" for ")[0] or purchase.diagnosis
        for line, key in [*((line, line) for line in lines), (purchase.diagnosis, reason)]:
            if (purchase.product_name, key) not in printed:
                printed.add((purchase.product_name, key))
                yield f"{purchase.product_name}: {line}"


def format_stage(stage: StageDocument) -> str:
    """Format a stage as one line."""
    ms = "" if stage.ms is None else f"+{stage.ms:.0f} ms"
    position = stage.event_id if stage.topic is None else f"{stage.topic}[{stage.partition}]@{stage.offset}"
    details = [detail for detail in (stage.type, stage.traceparent, stage.worker) if detail]
    return f"{stage.stage:10}{stage.at:28}{ms:>12}  {'  '.join([position, *details])}"
