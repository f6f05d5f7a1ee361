"""The schema of topics whose messages are chunks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from faust.serializers.schemas import Schema
from faust.types import AppT, EventT
from faust.types.tuples import Message


class ChunkSchema(Schema[bytes, bytes]):
    """Replaces: decoding key and value of each message.

    The value of a message is a record range, passed unchanged.
    """

    def __init__(self) -> None:
        super().__init__(key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw")

    def compile(self, app: AppT, **_: Any) -> Callable[..., Awaitable[EventT[Any]]]:
        """Return the function that wraps a message in an event."""
        create_event = app.create_event

        async def decode(message: Message, *, propagate: bool = False) -> EventT[Any]:
            return create_event(None, message.value, None, message)

        return decode
