"""A lock on a folder, so that only one process uses it at a time.

The operating system releases the lock of a killed process.
"""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout

from app.errors import FolderInUse

#: The umask of all processes: nobody else reads purchases from tables, dumps and reports.
PRIVATE = 0o077


def lock_folder(folder: Path, user: str, next_step: str, name: str = "lock") -> FileLock:
    """Create a folder that only this user can read, and lock it.

    The lock ends when it is released or garbage collected, or when the process ends.

    For the error message, `user` names the kind of process that uses the folder, and `next_step` is
    the remedy. Raises FolderInUse if another process holds the lock, OSError if the folder cannot
    be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Earlier versions created folders that everybody could read.
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o700)
    # Not in the lock file itself: some releases of filelock truncate that when they try to lock it.
    owner = folder / f"{name}-owner"
    lock = FileLock(folder / name, blocking=False, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        process_id = owner.read_text().strip() if owner.exists() else "unknown"
        raise FolderInUse(f"{folder} is in use by {user} with process id {process_id}: {next_step}") from None
    try:
        owner.write_text(f"{os.getpid()}\n")
    except OSError:
        lock.release()
        raise
    return lock


def delete_lock(lock: FileLock) -> None:
    """Release a lock and delete its files, for a folder whose content is deleted too."""
    path = Path(lock.lock_file)
    path.with_name(f"{path.name}-owner").unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    lock.release()
