"""Commands that compute for long give way to the workers on the same machine."""

from __future__ import annotations

import os

LOWEST = 19


def lower_priority(idle: bool) -> None:
    """Let others go first; with `idle` take only the processor time that nobody else wants.

    Linux weighs processes within one session, container or cgroup only: across them `idle` would be in the way more
    than the lowest priority is, so it is for who knows that a worker is in the same one.
    """
    os.nice(LOWEST)
    if idle and hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
