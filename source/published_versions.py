"""The highest version of the published changes, which survives a kill of the source.

The status that the leader writes every second contains it. Changes that were published after the
last status are in `orders` behind the offsets of the status.
"""

from __future__ import annotations

import msgspec
from aiokafka import TopicPartition

from app.control.source_state import SourceStates
from app.kafka.consume import open_consumer, partitions_of, read_until
from app.settings import Settings
from app.topics import Topics
from domain.codec import UNDECODABLE
from domain.events import CHANGED, PLACED, REMOVED
from source import versions

_CHANGES = {PLACED, CHANGED, REMOVED}


class _Data(msgspec.Struct):
    version: int = 0


class _Event(msgspec.Struct):
    type: str = ""
    data: _Data | None = None


_decode = msgspec.json.Decoder(_Event).decode


async def read_highest(settings: Settings, topics: Topics, states: SourceStates) -> int:
    """Return the highest version of all changes in `orders`; 0 if none is known. Raises ServerAway."""
    highest = states.highest_version
    if states.status is None:
        return highest
    partitions = partitions_of(topics.orders.name, settings.partitions)
    async with open_consumer(settings, isolation_level="read_uncommitted") as consumer:
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        begins: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
        consumer.assign(partitions)
        for tp in partitions:
            # Without an offset in the status, the partition had no event of the last leader.
            offset = states.status.offsets.get(tp.partition, ends[tp])
            consumer.seek(tp, min(max(offset, begins[tp]), ends[tp]))
        async for record in read_until(consumer, ends):
            highest = max(highest, _version(record.value))
    return highest


def _version(value: bytes | None) -> int:
    """Return the version of a change; 0 for other events."""
    try:
        event = _decode(value or b"")
    except UNDECODABLE:
        return 0
    version = event.data.version if event.data is not None and event.type in _CHANGES else 0
    return version if version < versions.MAX_VERSION else 0
