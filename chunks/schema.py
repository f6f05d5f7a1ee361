"""How Faust's conductor hands a chunk on: as it is."""

from __future__ import annotations

from typing import Any

from faust.serializers.schemas import Schema
from faust.types import AppT, EventT
from faust.types.tuples import Message


class ChunkSchema(Schema):
    """Replaces: decoding key and value of each message. The value of ours is a chunk."""

    def __init__(self) -> None:
        super().__init__(key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw")

    def compile(self, app: AppT, **_: Any) -> Any:
        """Return the function that makes an event of a message."""
        create_event = app.create_event

        async def decode(message: Message, *, propagate: bool = False) -> EventT:
            return create_event(None, message.value, None, message)

        return decode
