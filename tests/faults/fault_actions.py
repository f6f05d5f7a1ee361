"""What is done to servers and workers, once each; whoever does it looks afterwards whether all answers are right."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def last_for(seconds: float) -> None:
    """Let a fault last; there is nothing to wait for."""
    threading.Event().wait(seconds)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process meanwhile (SIGSTOP); one that has ended by itself stays as it is."""
    _tell(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        _tell(pid, signal.SIGCONT)


def _tell(pid: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # whoever looks next whether all is whole finds that it has ended
        os.kill(pid, what)


def damage(tables: Path, name: str) -> int:
    """Overwrite half of every file that a table has in the folder of a worker that is stopped; how many there were."""
    files = [file for file in tables.rglob("*.sst") if file.parent.name.startswith(name)]
    for file in files:
        content = bytearray(file.read_bytes())
        half = len(content) // 2
        content[:half] = bytes(byte ^ 0x5A for byte in content[:half])
        file.write_bytes(content)
    return len(files)
