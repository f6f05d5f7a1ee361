"""Where a report ends in the topic `orders`: an offset per partition, as text that a later report can be given."""

from __future__ import annotations

import re
from collections.abc import Mapping

from app.errors import BadReport

#: Partition -> the first offset that does not count.
Position = dict[int, int]

_PART = re.compile(r"([0-9]{1,6}):([0-9]{1,18})", re.ASCII)


def show(position: Mapping[int, int]) -> str:
    """A position as text, such as 0:123,1:456."""
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(position.items()))


def parse(text: str, partitions: int) -> Position:
    """The same, read; it names each partition once. Raises BadReport."""
    found: Position = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None or int(match[1]) in found:
            raise BadReport(
                f"--as-of: {text!r} is neither a position such as 0:123,1:456, as reports print it, "
                "nor a moment such as 2026-01-31T08:00:00Z"
            )
        found[int(match[1])] = int(match[2])
    if sorted(found) != list(range(partitions)):
        raise BadReport(f"--as-of: {text!r} does not name the {partitions} partitions of `orders`, from 0, each once")
    return found
