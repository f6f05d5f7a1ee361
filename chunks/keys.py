"""Keys that the engine itself writes to a changelog and to the store of a table.

They are part of the disk format.
"""

from __future__ import annotations

#: Prefix of the engine's own keys; no key of a table may start with it. (No UTF-8 text and no
#: msgpack array does.)
RESERVED_PREFIX = b"\xff"
#: First record of a changelog partition. Its value is an id, and INCOMPLETE_SUFFIX if data is
#: missing for good. Records before it are void.
BEGINNING_KEY = RESERVED_PREFIX + b"beginning"
#: Suffix of the value of a beginning when older records are missing for good.
INCOMPLETE_SUFFIX = b" incomplete"
#: Present in a changelog while a restore from a dump replaces its values.
RESTORING_KEY = RESERVED_PREFIX + b"restoring"

#: The number of digits of the largest offset.
_OFFSET_DIGITS = 19


def position_key(topic: str) -> bytes:
    """Return the key of the position of a table: its next offset in the source `topic`."""
    return RESERVED_PREFIX + b"position of " + topic.encode()


def parse_position(value: bytes | None) -> int | None:
    """Return the offset that a position contains; None for no position, and for anything else.

    Any client that may write to the changelog can write one.
    """
    if value is None or not value.isdigit() or len(value) > _OFFSET_DIGITS:
        return None
    return int(value)
