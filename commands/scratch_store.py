"""Stores on local disk in which a command keeps its intermediate results, and which one process uses at a time."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from app.folder_lock import lock_folder
from chunks import Store


class ScratchStore(Store):
    """A store with a lock that is released when the store is closed."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        super().__init__(path)
        self._lock = lock

    def close(self) -> None:
        """Close the store and release its lock."""
        super().close()
        self._lock.release()


def open_scratch_store(path: Path, process: str) -> Store:
    """Open or create a store; `process` names the kind of process that uses it.

    Raises FolderInUse if another process has opened it.
    """
    lock = lock_folder(path.parent, f"another {process}", "wait for its end, or stop it", f"{path.name}.lock")
    return ScratchStore(path, lock).open()
