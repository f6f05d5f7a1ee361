"""Position of a report in the topic `orders`: one offset per partition, also as text for a later report."""

from __future__ import annotations

import re
from collections.abc import Mapping

from app.errors import BadReport

#: Partition -> the first offset that is not counted.
Position = dict[int, int]

_PART = re.compile(r"([0-9]{1,6}):([0-9]{1,18})", re.ASCII)


def format_position(position: Mapping[int, int]) -> str:
    """Format a position, such as 0:123,1:456."""
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(position.items()))


def parse_position(text: str, partitions: int) -> Position:
    """Parse a position that contains each partition once. Raises BadReport."""
    parsed: Position = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None or int(match[1]) in parsed:
            raise BadReport(
                f"--as-of: {text!r} is neither a position of a report, such as 0:123,1:456, "
                "nor a moment such as 2026-01-31T08:00:00Z"
            )
        parsed[int(match[1])] = int(match[2])
    if sorted(parsed) != list(range(partitions)):
        raise BadReport(f"--as-of: {text!r} must contain each of the {partitions} partitions of `orders` once, from 0")
    return parsed
