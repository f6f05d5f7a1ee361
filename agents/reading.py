"""What every agent does first: read the event, or bury the record among the dead letters and go on."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from faust.types import StreamT
from faust.types.tuples import Message

from app import dead_letters, metrics
from app.core import orders_dead
from app.errors import UnreadableEvent
from app.frozen import pulse
from app.models import Event, read_event

log = logging.getLogger(__name__)


async def readable(stream: StreamT, agent: str, keyed_by: str = "user_id") -> AsyncIterator[tuple[Event, Message]]:
    """The events of `stream` that can be read, each with the record it came from.

    A record is acknowledged when the agent asks for the next one. (Faust's own acknowledgement is off: it also
    happens when the agent fails, and that would lose the record.)
    """
    async for item in stream.noack().events():
        pulse.check()
        message = item.message
        try:
            event = read_event(message.key, message.value, keyed_by)
        except UnreadableEvent as exc:
            _bury(message, exc, agent)
        else:
            yield event, message
            metrics.EVENTS.labels(agent, event.type, "applied").inc()
        item.ack()


def _bury(message: Message, reason: UnreadableEvent, agent: str) -> None:
    log.warning(
        "unreadable event at %s[%s]@%s goes to %s: %s: %s",
        message.topic, message.partition, message.offset, orders_dead.get_topic_name(), reason.reason, reason,
    )  # fmt: skip
    orders_dead.send_soon(
        key=dead_letters.cut(message.key),
        value=dead_letters.cut(message.value),
        headers=dead_letters.headers(reason, topic=message.topic, partition=message.partition, offset=message.offset),
    )
    metrics.EVENTS.labels(agent, "unknown", "dead").inc()
    metrics.DEAD.labels(reason.reason).inc()
