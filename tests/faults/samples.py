"""Memory, file descriptors and disk of processes over time, and whether they stay as they are."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.kit.background import beside

EVERY_S = 2.0
MIB = 2**20


class Watched(NamedTuple):
    """A process by its id at that moment, None while there is none, and the folder where it keeps its data."""

    pid: Callable[[], int | None]
    folder: Path | None


class Bound(NamedTuple):
    """How much more of something the last quarter of a run may have than the one before: a part of it, and so much."""

    part: float
    more: float

    def holds(self, before: float, after: float) -> bool:
        return after <= before * (1 + self.part) + self.more


#: What is measured, and what is flat. A worker that has just begun fills its caches and its write buffers (16 MiB for
#: each partition of a table), and for a while it may have the other one's partitions, too, each with some files.
BOUNDS = {
    "memory, MiB": Bound(0.25, 48),
    "file descriptors": Bound(0.25, 30),
    "disk, MiB": Bound(0.15, 8),
}


class Samples:
    """Samples of some processes since `start`: measure -> name -> [(seconds, value)]."""

    def __init__(self, watched: Mapping[str, Watched]) -> None:
        self._watched = watched
        self.start = time.monotonic()
        self.taken: dict[str, dict[str, list[tuple[float, float]]]] = {
            measure: {name: [] for name in watched} for measure in BOUNDS
        }

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Take samples for as long as this is entered."""

        def take(ended: threading.Event) -> None:
            while not ended.wait(EVERY_S):
                self._take()

        with beside(take):
            yield

    def _take(self) -> None:
        at = time.monotonic() - self.start
        for name, one in self._watched.items():
            if one.folder is not None:
                self.taken["disk, MiB"][name].append((at, disk_bytes(one.folder) / MIB))
            pid = one.pid()
            with suppress(OSError, TypeError):  # it has ended meanwhile, or there is none
                self.taken["memory, MiB"][name].append((at, memory_bytes(pid) / MIB))
                self.taken["file descriptors"][name].append((at, len(os.listdir(f"/proc/{pid}/fd"))))

    def quarters(self, measure: str, name: str, broken: Sequence[tuple[float, float]]) -> tuple[float, float]:
        """The medians of the third and the last quarter of the run, of samples while nothing was `broken`.

        Raises ValueError when there are none.
        """
        taken = self.taken[measure][name]
        end = taken[-1][0]
        calm = [(at, value) for at, value in taken if not any(first <= at <= last for first, last in broken)]
        third = [value for at, value in calm if end / 2 <= at < end * 3 / 4]
        last = [value for at, value in calm if at >= end * 3 / 4]
        if not third or not last:
            raise ValueError("the run was too short: something was broken all the time; set SOAK_MINUTES to more")
        return median(third), median(last)


def memory_bytes(pid: int) -> int:
    """The resident memory of a process. Raises FileNotFoundError."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def disk_bytes(folder: Path) -> int:
    """What the files in a folder take of the disk; those that vanish meanwhile are left out."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
    return total
