"""Decide which work of a worker is stalled, from repeated observations; pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

#: Reasons, as labels of metrics. The first two are failures of this worker, which a restart can
#: repair.
NO_PROGRESS, RECOVERY_STALLED = "no-progress", "recovery-stalled"
#: The others are failures elsewhere: the worker can still answer from its tables, and a restart
#: repairs nothing.
KAFKA_AWAY, SOURCE_SILENT = "kafka-away", "source-silent"
WORKER_REASONS = (NO_PROGRESS, RECOVERY_STALLED)
REASONS = (*WORKER_REASONS, KAFKA_AWAY, SOURCE_SILENT)


class StallLimits(NamedTuple):
    """Seconds without progress until a stall is reported, and until the process exits; 0: never."""

    report_s: float
    exit_s: float

    @property
    def first_s(self) -> float:
        """The shorter of the limits that are set; 0: none is."""
        return min(filter(None, self), default=0.0)


class WorkState(NamedTuple):
    """An observation of work. While it `is_pending`, a change of its `token` is progress.

    `reason` is one of REASONS, `description` is for people; `grace_s` is added to the limits.
    """

    token: Hashable
    is_pending: bool
    reason: str
    description: str
    grace_s: float = 0.0


class Stall(NamedTuple):
    """Work without progress for `seconds`; if it `is_overdue`, the process has to exit."""

    name: str
    reason: str
    description: str
    seconds: float
    is_overdue: bool

    def __str__(self) -> str:
        return f"{self.description} for {self.seconds:.0f} s"


class StallDetector:
    """Measures how long each work has made no progress.

    Work that an observation does not contain starts again.

    `worker_limits` apply to WORKER_REASONS, `other_limits` to the other reasons.
    """

    def __init__(self, worker_limits: StallLimits, other_limits: StallLimits) -> None:
        self._worker_limits, self._other_limits = worker_limits, other_limits
        #: Work -> its last observation, and the time of its last progress.
        self._last: dict[str, tuple[Hashable, float]] = {}

    def observe(self, now: float, works: Mapping[str, WorkState]) -> list[Stall]:
        """Return the stalled work at `now` (s, of a monotonic clock), in the order of REASONS."""
        observed: dict[str, tuple[Hashable, float]] = {}
        stalls: list[Stall] = []
        for name, work in works.items():
            state = (work.is_pending, work.token)
            last_state, progress_at = self._last.get(name, (None, now))
            if not work.is_pending or last_state != state:
                progress_at = now
            observed[name] = (state, progress_at)
            limits = self._worker_limits if work.reason in WORKER_REASONS else self._other_limits
            seconds = now - progress_at
            is_reported, is_overdue = (bool(limit) and seconds >= limit + work.grace_s for limit in limits)
            if work.is_pending and (is_reported or is_overdue):
                stalls.append(Stall(name, work.reason, work.description, seconds, is_overdue))
        self._last = observed
        return sorted(stalls, key=lambda stall: REASONS.index(stall.reason))
