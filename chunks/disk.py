"""Errors of the disk under a table, and the deletion of damaged files at the next start."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from pathlib import Path

from chunks.errors import DiskFailed

log = logging.getLogger(__name__)


def to_disk_error(path: Path, exc: Exception) -> Exception:
    """Return the exception to raise for an error of RocksDB.

    That is DiskFailed, or `exc` if the disk is not the cause.

    rocksdict's errors differ only in their text. Damaged files are marked, so that the next start
    deletes them.
    """
    text = str(exc)
    if is_damage(exc):
        with suppress(OSError):  # without the mark the next start reports the damage again
            _damage_mark(path).touch()
        return DiskFailed(
            f"the files of {path} are damaged ({text}): start the worker again, it rebuilds them from their changelog"
        )
    if text.startswith("IO error"):
        return DiskFailed(
            f"the disk under {path} fails ({text}): repair it or free space, then start the worker again; no data is "
            "lost"
        )
    return exc


def is_damage(exc: Exception) -> bool:
    """Return whether RocksDB reports files that are missing or differ from the written ones."""
    text = str(exc)
    return text.startswith("Corruption") or (text.startswith("IO error") and "No such file" in text)


def delete_damaged(path: Path) -> None:
    """Delete the files of a table if they are marked as damaged."""
    mark = _damage_mark(path)
    if mark.exists():
        delete_files(path, "they are damaged")
        mark.unlink()


def delete_files(path: Path, reason: object) -> None:
    """Delete the files of a table and log the reason."""
    log.warning("%s: the files are rebuilt from their changelog, %s", path, reason)
    shutil.rmtree(path, ignore_errors=True)


def _damage_mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")
