"""A file that is there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from app.errors import BadReport


def require_writable(path: Path, force: bool) -> None:
    """Raise BadReport where a file cannot be written, or is there already and `force` is not given."""
    if path.is_dir():
        raise BadReport(f"{path} is a folder: give the name of a file")
    if path.exists() and not force:
        raise BadReport(f"{path} is there already: choose another name, or give --force to replace it")
    if not path.parent.is_dir():
        raise BadReport(f"{path.parent} is no folder: make it, or choose another")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as exc:
        raise BadReport(f"{path} cannot be written ({exc.strerror}): choose another") from None


def write(path: Path, make: Callable[[Path], object], force: bool) -> None:
    """Let `make` write a file beside `path`, and give it that name once it is on disk. Raises BadReport."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            make(beside)
            with beside.open("rb") as made:
                os.fsync(made.fileno())
            if force:
                beside.replace(path)
            else:
                # Unlike a renaming, it fails when somebody else was faster.
                os.link(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except FileExistsError:
        raise BadReport(f"{path} is there already: choose another name, or give --force to replace it") from None
    except OSError as exc:
        raise BadReport(f"{path} cannot be written ({exc.strerror}): choose another") from None
