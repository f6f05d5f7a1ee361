"""Memory and processor time of processes, as the kernel counts them."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


class Usage:
    """Peak memory and processor time of the session of process `pid`; call sample() repeatedly.

    `other_sessions` are the other processes of the benchmark, and may grow. `foreign_share` is the
    share of the machine that neither they nor `pid` used.
    """

    def __init__(self, pid: int, other_sessions: Collection[int] = ()) -> None:
        self.pid = pid
        self.other_sessions = other_sessions
        self._own_seconds: dict[int, float] = {}
        self.peaks: dict[int, int] = {}
        self.seconds: dict[int, float] = {}
        self.first_sample: tuple[float, float] | None = None
        self.foreign_share = 0.0

    def sample(self) -> None:
        """Read the current numbers; those of a process that has ended keep their last value."""
        ours = {self.pid, *self.other_sessions, os.getsid(0)}
        for pid, session, seconds in list_processes():
            if session in ours:
                self._own_seconds[pid] = seconds
            if session == self.pid:
                self.seconds[pid] = seconds
                self.peaks[pid] = max(self.peaks.get(pid, 0), peak_kib(pid))
        now, foreign_seconds = time.monotonic(), busy_seconds() - sum(self._own_seconds.values())
        if self.first_sample is None:
            self.first_sample = now, foreign_seconds
        elif now > self.first_sample[0]:
            cores = os.cpu_count() or 1
            self.foreign_share = max(
                0.0, (foreign_seconds - self.first_sample[1]) / (now - self.first_sample[0]) / cores
            )

    @property
    def peak_mib(self) -> float:
        """The peak resident memory in MiB, each process at its own peak."""
        return sum(self.peaks.values()) / 1024

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time, user and system, since the processes began."""
        return sum(self.seconds.values())


def list_processes() -> list[tuple[int, int, float]]:
    """Return id, session and seconds of processor time of all processes."""
    listed = []
    for path in PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        listed.append((int(path.parent.name), int(fields[3]), (int(fields[11]) + int(fields[12])) / TICKS))
    return listed


def peak_kib(pid: int) -> int:
    """Return the peak resident memory of a process; 0 if it has ended."""
    return read_status(pid, "VmHWM")


def read_status(pid: int, name: str) -> int:
    """Return a number of /proc/<pid>/status, e.g. VmRSS (KiB) or Threads; 0 after its end."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def cpu_s(pid: int) -> float:
    """Return the seconds of processor time of the session of process `pid`."""
    return sum(seconds for _, session, seconds in list_processes() if session == pid)


def busy_seconds() -> float:
    """Return the busy seconds of all cores since the boot, including stolen time."""
    numbers = [int(number) for number in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting = numbers[3], numbers[4]
    return (sum(numbers) - idle - waiting) / TICKS
