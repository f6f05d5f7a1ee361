"""End a worker that was frozen for longer than its session.

A stopped process, a suspended machine or a paused container resumes with partitions that belong to
another worker. Kafka refuses the writes of the old owner
(docs/decisions/005-one-transaction-per-source-partition.md); this guard also keeps it from
answering requests from tables that it does not own any more.
"""

from __future__ import annotations

import os
import sys
import threading
import time

EX_SOFTWARE = 70

# The broker counts from the last heartbeat, which was sent up to a third of the session before the
# freeze.
SHARE_OF_SESSION = 0.6
BEATS_PER_LIMIT = 10

# This clock also counts the time in which the machine sleeps, if the system has such a clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class FreezeGuard:
    """A thread that beats, and a check that ends the process when the beats paused for too long."""

    def __init__(self, session_timeout_s: float) -> None:
        self._limit_s = session_timeout_s * SHARE_OF_SESSION
        self._is_started = False
        self._last_beat = 0.0

    def start(self) -> None:
        """Start the thread. Before that, `check` does nothing."""
        self._last_beat = time.clock_gettime(_CLOCK)
        self._is_started = True
        threading.Thread(target=self._beat, name="freeze guard", daemon=True).start()

    def check(self) -> None:
        """End the process at once with exit code 70 if it was frozen."""
        if not self._is_started:
            return
        gap_s = time.clock_gettime(_CLOCK) - self._last_beat
        if gap_s > self._limit_s:
            sys.stderr.write(
                f"lately: frozen for {gap_s:.0f} s, another worker has taken over: start this worker again\n"
            )
            sys.stderr.flush()
            os._exit(EX_SOFTWARE)

    def _beat(self) -> None:
        while True:
            self.check()
            self._last_beat = time.clock_gettime(_CLOCK)
            time.sleep(self._limit_s / BEATS_PER_LIMIT)
