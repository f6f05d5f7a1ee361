"""Files that exist completely or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from app.errors import BadReport


def require_writable(path: Path, force: bool) -> None:
    """Raise BadReport if the file cannot be written, or exists and `force` is not set."""
    if path.is_dir():
        raise BadReport(f"{path} is a folder: choose the name of a file")
    if path.exists() and not force:
        raise BadReport(f"{path} exists already: choose another name, or use --force to replace it")
    if not path.parent.is_dir():
        raise BadReport(f"{path.parent} is not a folder: create it, or choose another")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as exc:
        raise BadReport(f"{path} cannot be written ({exc.strerror}): choose another path") from None


def write(path: Path, make: Callable[[Path], object], force: bool) -> None:
    """Let `make` write a temporary file, and rename it to `path`; an existing file needs `force`. Raises BadReport."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            make(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            if force:
                temporary.replace(path)
            else:
                # Unlike a rename, a link fails if another process created the file meanwhile.
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise BadReport(f"{path} exists already: choose another name, or use --force to replace it") from None
    except OSError as exc:
        raise BadReport(f"{path} cannot be written ({exc.strerror}): choose another path") from None
