"""A disk that fails a table: what is said about it, and that damaged files are made anew with the next start."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from pathlib import Path

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


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")
