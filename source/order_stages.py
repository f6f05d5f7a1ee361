"""Stages of a purchase in Kafka, found by offset and by time, without a search through a topic."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aiokafka.structs import ConsumerRecord

from app.kafka.records import TopicRecords, source_position_key
from app.topics import WORKER, Topics
from domain import purchases
from domain.errors import UnknownFormat, UnreadableEvent
from domain.events import Event, read_event
from domain.purchases import Purchase
from domain.values import microseconds, parse_rfc3339

#: Maximum number of changelog records to read after the time at which an event was published.
MAX_RECORDS = 20_000
#: Maximum difference between the clocks of two brokers.
MAX_CLOCK_SKEW_MS = 5_000

#: Names of the stages in JSON.
CAPTURED, PUBLISHED, APPLIED = "captured", "published", "applied"


@dataclass(frozen=True)
class OrderStage:
    """A stage, its time in microseconds since 1970, and further fields for JSON."""

    name: str
    time: int
    fields: dict[str, object]


@dataclass(frozen=True)
class PurchaseStages:
    """The stages that the topics still contain, the event's type, and the time of its commit."""

    stages: tuple[OrderStage, ...] = ()
    event_type: str | None = None
    applied_at: int | None = None


async def read_stages(
    records: TopicRecords, topics: Topics, user_id: str, partition: int, purchase: Purchase
) -> PurchaseStages:
    """Find when the newest known event of a purchase was captured, published and applied."""
    orders = topics.orders.name
    record = await records.read_at(orders, partition, purchase.offset) if purchase.offset >= 0 else None
    event = None if record is None else decode_event(record.key, record.value)
    if record is None or event is None:
        return PurchaseStages()
    captured_at = microseconds(parse_rfc3339(event.time))
    captured = OrderStage(
        CAPTURED, captured_at, {"event_id": event.id, "type": event.type, "traceparent": event.traceparent}
    )
    published = OrderStage(
        PUBLISHED, record.timestamp * 1000, {"topic": orders, "partition": partition, "offset": purchase.offset}
    )
    applied = await _find_applied(records, topics, user_id.encode(), partition, purchase, record.timestamp)
    if applied is None:
        return PurchaseStages((captured, published), event.type)
    return PurchaseStages((captured, published, applied), event.type, applied.time)


def decode_event(key: bytes | None, value: bytes | None) -> Event | None:
    """Decode the event of a record; None for an unreadable record."""
    try:
        return read_event(key, value)
    except UnreadableEvent:
        return None


async def _find_applied(
    records: TopicRecords, topics: Topics, user: bytes, partition: int, purchase: Purchase, published_ms: int
) -> OrderStage | None:
    """Find the first changelog record that contains the purchase, and the worker that committed it.

    Returns None when compaction has removed the record, or MAX_RECORDS records do not contain it.
    """
    changelog, commit_key = topics.changelog("by_user"), source_position_key(topics.orders.name)
    # The second attempt is for a changelog whose broker's clock is behind that of the broker of
    # `orders`.
    for since_ms in (published_ms, published_ms - MAX_CLOCK_SKEW_MS):
        offset = await records.offset_at_time(changelog, partition, since_ms)
        if offset is None:
            continue
        applied: OrderStage | None = None
        count = 0
        async for record in records.read_from(changelog, partition, offset, MAX_RECORDS):
            count += 1
            if applied is None and _contains(record, user, purchase):
                applied = OrderStage(APPLIED, record.timestamp * 1000, {
                    "version": purchase.version, "worker": None,
                    "topic": changelog, "partition": partition, "offset": record.offset,
                })  # fmt: skip
            elif applied is not None and record.key == commit_key:
                worker = (dict(record.headers).get(WORKER) or b"").decode(errors="replace") or None
                return replace(applied, fields={**applied.fields, "worker": worker})
        # Many records are a backlog, which a difference of clocks does not explain.
        if applied is not None or count == MAX_RECORDS:
            return applied
    return None


def _contains(record: ConsumerRecord, user: bytes, purchase: Purchase) -> bool:
    if record.value is None or record.key is None or not record.key.startswith(user):
        return False
    try:
        if record.key == user:
            return purchase in purchases.decode_recent(record.value).purchases
        if record.key == purchases.overflow_key(user, *purchase.identity):
            return bool(purchase == purchases.decode_overflow(record.value))
    except UnknownFormat:
        pass
    return False
