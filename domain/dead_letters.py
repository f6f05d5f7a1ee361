"""Dead letters: unreadable records in `orders-dead`, with the reason and the origin as headers."""

from __future__ import annotations

import traceback
from datetime import datetime, timezone
from typing import overload

from domain.errors import UnreadableEvent

HEADER_PREFIX = "__lately.errors."
#: The reason of a record that cannot be taken apart, whose key and value are unknown.
DAMAGED = "damaged-record"

#: Limits of the texts. They may quote the record; without limits a dead letter could exceed the
#: maximum record size of the topic.
MAX_MESSAGE_CHARS, MAX_STACKTRACE_CHARS = 1_000, 4_000
#: The limit of the key and of the value of a dead letter.
MAX_PART_BYTES = 1_500_000


@overload
def truncate_part(part: bytes) -> bytes: ...
@overload
def truncate_part(part: bytes | None) -> bytes | None: ...
def truncate_part(part: bytes | None) -> bytes | None:
    """Return the key or value of a dead letter, truncated to MAX_PART_BYTES."""
    return part[:MAX_PART_BYTES] if part is not None else None


def build_headers(
    error: UnreadableEvent, *, topic: str, partition: int | str, offset: int, now: datetime | None = None
) -> list[tuple[str, bytes]]:
    """Return the headers of a dead letter: origin of the record, error, and time of the failure."""
    now = now or datetime.now(timezone.utc)
    values = {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "exception": error.reason,
        "message": str(error)[:MAX_MESSAGE_CHARS],
        "stacktrace": "".join(traceback.format_exception(error))[:MAX_STACKTRACE_CHARS],
        "attempts": 1,
        "first_failed_at": now.replace(tzinfo=None).isoformat() + "Z",
    }
    return [(HEADER_PREFIX + name, str(value).encode()) for name, value in values.items()]
