"""A disk that fails a table: what is said about it, and that damaged files are made anew with the next start."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from chunks.errors import DiskFailed

log = logging.getLogger(__name__)


def failure(path: Path, exc: Exception) -> Exception:
    """What to raise for an error of RocksDB (rocksdict tells them apart by their text only); notes what is damaged."""
    text = str(exc)
    if is_damage(exc):
        with suppress(OSError):  # then it is met, and said, again
            _mark(path).touch()
        return DiskFailed(
            f"the files of {path} are damaged ({text}): start the worker again, it makes them anew from their changelog"
        )
    if text.startswith("IO error"):
        return DiskFailed(
            f"the disk under {path} fails ({text}): mend it or make room, then start the worker again; nothing is lost"
        )
    return exc


def is_damage(exc: Exception) -> bool:
    """Whether files are there, but not as they were written."""
    text = str(exc)
    return text.startswith("Corruption") or (text.startswith("IO error") and "No such file" in text)


def forget_damaged(path: Path) -> None:
    """Delete a table's files where they were found to be damaged."""
    mark = _mark(path)
    if mark.exists():
        forget(path, "they were found to be damaged")
        mark.unlink()


def forget(path: Path, why: object) -> None:
    """Delete a table's files, and say why."""
    log.warning("%s: the files are made anew from their changelog, %s", path, why)
    shutil.rmtree(path, ignore_errors=True)


def demand_end(rows: Any, first: bytes, last: bytes) -> None:
    """Raise what has ended a loop over `rows` (a rocksdict or a snapshot of one), if anything has.

    Where RocksDB cannot read on, rocksdict ends the loop as if there were no more. It began at the key `first`; `last`
    is the last key that it saw, empty when there was none.
    """
    rest, steps = rows.iter(), 0
    rest.seek(last or first)
    while rest.valid():
        rest.next()
        steps += 1
    rest.status()
    if last and steps > 1:
        raise OSError(f"IO error: a read ended early after {last!r}")


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")
