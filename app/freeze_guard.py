"""A worker that was frozen for longer than its session ends itself, because another one has its partitions by then.

A stopped process, a suspended machine or a paused container wakes up with partitions in its hands that belong to
somebody else now. Kafka refuses what it would write (docs/decisions/005-one-transaction-per-source-partition.md);
ending at once also keeps it from answering with tables that are no longer its own.
"""

from __future__ import annotations

import os
import sys
import threading
import time

EX_SOFTWARE = 70

# The broker counts from the last heartbeat, which was sent up to a third of the session before the freeze.
SHARE_OF_SESSION = 0.6
BEATS_PER_LIMIT = 10

# Counts on while the machine sleeps, where the system has such a clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Pulse:
    """A thread that beats, and a check that ends the process when it did not for too long."""

    def __init__(self) -> None:
        self._limit_s: float | None = None
        self._last = 0.0

    def start(self, session_timeout_s: float) -> None:
        """Begin to beat; before that `check` finds nothing wrong."""
        self._last = time.clock_gettime(_CLOCK)
        self._limit_s = session_timeout_s * SHARE_OF_SESSION
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def check(self) -> None:
        """End the process at once, with exit code 70, if it was frozen."""
        if self._limit_s is None:
            return
        gap = time.clock_gettime(_CLOCK) - self._last
        if gap > self._limit_s:
            sys.stderr.write(f"lately: frozen for {gap:.0f} s, another worker has taken over: start this one again\n")
            sys.stderr.flush()
            os._exit(EX_SOFTWARE)

    def _beat(self) -> None:
        while True:
            self.check()
            self._last = time.clock_gettime(_CLOCK)
            time.sleep(self._limit_s / BEATS_PER_LIMIT)


pulse = Pulse()
