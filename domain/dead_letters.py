"""Records that cannot be read go to `orders-dead` as they were, with the reason and the origin in the headers."""

from __future__ import annotations

import traceback
from datetime import datetime, timezone
from typing import overload

from domain.errors import UnreadableEvent

HEADER_PREFIX = "__lately.errors."

# A text that quotes the record must not make the dead letter too large for its topic.
MAX_MESSAGE_CHARS, MAX_STACKTRACE_CHARS = 1_000, 4_000
MAX_PART_BYTES = 1_500_000


@overload
def truncate_part(part: bytes) -> bytes: ...
@overload
def truncate_part(part: bytes | None) -> bytes | None: ...
def truncate_part(part: bytes | None) -> bytes | None:
    """The key or value of a dead letter: as it was, or its beginning where it would not fit the topic."""
    return part[:MAX_PART_BYTES] if part is not None else None


def build_headers(
    error: UnreadableEvent, *, topic: str, partition: int | str, offset: int, now: datetime | None = None
) -> list[tuple[str, bytes]]:
    """The headers of a dead letter: where it came from, what is wrong with it, and since when."""
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
