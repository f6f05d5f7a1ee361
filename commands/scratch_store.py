"""Stores on local disk for intermediate results of commands, one process at a time."""

from __future__ import annotations

import shutil
from pathlib import Path

from filelock import FileLock

from app.folder_lock import delete_lock, lock_folder
from chunks import Store


class ScratchStore(Store):
    """A store with a lock that is released when the store is closed."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        super().__init__(path)
        self._lock = lock

    def close(self) -> None:
        """Close the store and release its lock; another process can continue the work."""
        super().close()
        self._lock.release()

    def delete(self) -> None:
        """Close the store, and delete it and its lock."""
        super().close()
        shutil.rmtree(self.path)
        delete_lock(self._lock)


def open_scratch_store(path: Path, process: str) -> ScratchStore:
    """Open or create a store; `process` names the kind of process that uses it.

    Raises FolderInUse if another process has opened it.
    """
    lock = lock_folder(path.parent, f"another {process}", "wait for its end, or stop it", f"{path.name}.lock")
    store = ScratchStore(path, lock)
    store.open()
    return store
