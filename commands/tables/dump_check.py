"""Whether a dump can be restored completely: checked before the first write, because a file is input."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from app.errors import BadDump
from app.topics import DUMPED_TABLES
from chunks import RESERVED_PREFIX
from commands.tables.dump import INTERMEDIATE_TOPICS
from commands.tables.dump_file import DumpHead, Frame, PairsFrame, RecordsFrame
from domain.errors import LatelyError
from domain.totals import decode_totals

MAX_OFFSET = 2**63 - 1


def require_restorable(path: Path, head: DumpHead, frames: Iterable[Frame]) -> None:
    """Raise BadDump unless the dump contains every partition of every table, and nothing else.

    `frames` are those of the file, whose digests are right.
    """
    parts = [(part.table, part.partition) for part in head.parts]
    expected = {(table, number) for table in DUMPED_TABLES for number in range(head.partitions)}
    if len(parts) != len(expected) or set(parts) != expected:
        raise BadDump(
            f"{path} does not contain each of the {head.partitions} partitions of {', '.join(DUMPED_TABLES)} once: "
            "use another dump"
        )
    if not all(0 <= (part.position or 0) <= MAX_OFFSET for part in head.parts):
        raise BadDump(f"{path} contains a position that is no offset: use another dump")
    for frame in frames:
        problem = _find_problem(frame, head.partitions)
        if problem is not None:
            raise BadDump(f"{path} contains {problem}: use another dump")


def _find_problem(frame: Frame, partitions: int) -> str | None:
    if isinstance(frame, RecordsFrame):
        if frame.topic not in INTERMEDIATE_TOPICS or not 0 <= frame.partition < partitions:
            return "records of another topic"
    elif isinstance(frame, PairsFrame):
        if any(not key or key[:1] == RESERVED_PREFIX for key, _ in frame.pairs):
            return "a key that belongs to the engine"
        if frame.table == "product_partials" and not all(_is_total(key, value) for key, value in frame.pairs):
            return "a total of a product that cannot be read"
    return None


def _is_total(product: bytes, value: bytes) -> bool:
    try:
        product.decode()
        decode_totals(value)
    except (UnicodeDecodeError, LatelyError, ValueError, ArithmeticError):
        return False
    return True
