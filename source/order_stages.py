"""The stages of a purchase on its way through Kafka, found by offset and by time, never by searching a topic."""

from __future__ import annotations

from datetime import datetime

from aiokafka.structs import ConsumerRecord

from app.kafka.records import Records, source_position_key
from app.settings import Settings
from app.topics import WORKER, Topics
from domain import purchases
from domain.errors import UnknownFormat, UnreadableEvent
from domain.events import Event, read_event
from domain.partitioning import partition_of
from domain.purchases import Register
from domain.values import microseconds

#: How far the changelog is read behind the moment at which an event was published; and how much clocks may differ.
MOST_RECORDS, SKEW_MS = 20_000, 5_000

#: `stage`, `us` (when, in microseconds since 1970), and what is known of it.
Stage = dict[str, object]


async def read_stages(log: Records, settings: Settings, user_id: str, known: Register) -> list[Stage]:
    """When what is known of a purchase was captured, published and applied, as far as the topics still have it."""
    topics, partition = Topics(settings), partition_of(user_id.encode(), settings.partitions)
    record = await log.at(topics.orders.name, partition, known.offset) if known.offset >= 0 else None
    event = None if record is None else decode_event(record.key, record.value)
    if event is None:
        return []
    captured: Stage = {
        "stage": "captured", "us": microseconds(datetime.fromisoformat(event.time.replace("Z", "+00:00"))),
        "event_id": event.id, "type": event.type, "traceparent": event.traceparent,
    }  # fmt: skip
    published: Stage = {
        "stage": "published", "us": record.timestamp * 1000,
        "topic": topics.orders.name, "partition": partition, "offset": known.offset,
    }  # fmt: skip
    applied = await _applied(log, settings, user_id.encode(), known, partition, record.timestamp)
    return [captured, published] if applied is None else [captured, published, applied]


def decode_event(key: bytes | None, value: bytes | None) -> Event | None:
    """The event of a record; None for one that cannot be read."""
    try:
        return read_event(key, value)
    except UnreadableEvent:
        return None


async def _applied(
    log: Records, settings: Settings, user: bytes, known: Register, partition: int, published_ms: int
) -> Stage | None:
    """Where the changelog says it first; None where that was compacted away, or lies too far behind."""
    topics = Topics(settings)
    changelog, at = topics.changelog("by_user"), source_position_key(topics.orders.name)
    for since_ms in (published_ms, published_ms - SKEW_MS):
        offset = await log.since(changelog, partition, since_ms)
        if offset is None:
            continue
        said, passed = None, 0
        async for record in log.after(changelog, partition, offset, MOST_RECORDS):
            passed += 1
            if said is None and _says(record, user, known):
                said = {
                    "stage": "applied", "us": record.timestamp * 1000, "version": known.version, "worker": None,
                    "topic": changelog, "partition": partition, "offset": record.offset,
                }  # fmt: skip
            elif said is not None and record.key == at:
                return {**said, "worker": dict(record.headers).get(WORKER, b"").decode() or None}
        # Clocks that differ explain no backlog.
        if said is not None or passed == MOST_RECORDS:
            return said
    return None


def _says(record: ConsumerRecord, user: bytes, known: Register) -> bool:
    if record.value is None or not record.key.startswith(user):
        return False
    try:
        if record.key == user:
            return known in purchases.decode_recent(record.value).registers
        if record.key == purchases.earlier_key(user, *known.identity):
            return known == purchases.decode_earlier(record.value)
    except UnknownFormat:
        pass
    return False
