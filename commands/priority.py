"""CPU priority of long-running commands, which must not slow down local workers."""

from __future__ import annotations

import os

#: The lowest priority of `nice`.
MAX_NICE = 19


def lower_priority(idle: bool) -> None:
    """Lower the CPU priority of this process.

    With `idle` use only CPU time that no other process needs. Linux compares priorities only within
    one session, container or cgroup. Between two of them an idle process gets more CPU time than a
    process with the lowest priority. So use `idle` only if the worker runs in the same one.
    """
    os.nice(MAX_NICE)
    if idle and hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
