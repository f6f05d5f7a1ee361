"""What a process has used so far, and what others used of the machine at the same time, as the kernel counts it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


class Usage:
    """Peak memory and processor time of the session of process `pid`; look() now and then.

    `known` are the sessions of the benchmark's other processes, and may grow: what neither they nor `pid` used is
    somebody else's.
    """

    def __init__(self, pid: int, known: Collection[int] = ()) -> None:
        self.pid = pid
        self.known = known
        self._ours: dict[int, float] = {}
        self.peaks: dict[int, int] = {}
        self.seconds: dict[int, float] = {}
        self.began: tuple[float, float] | None = None
        self.elsewhere = 0.0

    def look(self) -> None:
        """Note the present numbers; those of a process that has ended stay as they were seen last."""
        ours = {self.pid, *self.known, os.getsid(0)}
        for pid, session, seconds in processes():
            if session in ours:
                self._ours[pid] = seconds
            if session == self.pid:
                self.seconds[pid] = seconds
                self.peaks[pid] = max(self.peaks.get(pid, 0), peak_kib(pid))
        now, others = time.monotonic(), busy_seconds() - sum(self._ours.values())
        if self.began is None:
            self.began = now, others
        elif now > self.began[0]:
            cores = os.cpu_count() or 1
            self.elsewhere = max(0.0, (others - self.began[1]) / (now - self.began[0]) / cores)

    @property
    def peak_mib(self) -> float:
        """The peak resident memory in MiB, each process at its own peak."""
        return sum(self.peaks.values()) / 1024

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time, user and system, since the processes began."""
        return sum(self.seconds.values())


def processes() -> list[tuple[int, int, float]]:
    """All processes that live now: id, session (LocalProcess starts one for each), seconds of processor time."""
    found = []
    for path in PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append((int(path.parent.name), int(fields[3]), (int(fields[11]) + int(fields[12])) / TICKS))
    return found


def peak_kib(pid: int) -> int:
    """The peak resident memory of one process; 0 when it is gone."""
    return status(pid, "VmHWM")


def status(pid: int, name: str) -> int:
    """A number of the kernel's about one process, as VmRSS (KiB) and Threads; 0 when it is gone."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def cpu_s(pid: int) -> float:
    """Seconds of processor time of the session of process `pid` so far."""
    return sum(seconds for _, session, seconds in processes() if session == pid)


def busy_seconds() -> float:
    """Seconds all cores together were busy, or taken from this machine by its host (steal), since it was started."""
    numbers = [int(number) for number in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting = numbers[3], numbers[4]
    return (sum(numbers) - idle - waiting) / TICKS
