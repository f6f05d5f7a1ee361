"""What stands still although there is work: a pure judgement of what a worker looks at again and again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

#: Reasons, as they are counted. The first two are this worker's own, and a new start can mend them.
NO_PROGRESS, RECOVERY_STALLED = "no-progress", "recovery-stalled"
#: The others are somebody else's: what the worker has it can still answer, and a new start mends nothing.
KAFKA_AWAY, SOURCE_SILENT = "kafka-away", "source-silent"
OWN = (NO_PROGRESS, RECOVERY_STALLED)
REASONS = (*OWN, KAFKA_AWAY, SOURCE_SILENT)


class Limits(NamedTuple):
    """From when on (s) standing still is said, and from when on it ends the process; 0: never."""

    say_s: float
    end_s: float

    @property
    def first_s(self) -> float:
        """The shorter of the two that are set; 0: none is."""
        return min(filter(None, self), default=0.0)


class Work(NamedTuple):
    """Something that has to move while it `waits`: it moves when its `token` changes.

    `reason` is one of REASONS, `where` says in words what waits; `patience_s` is added to the limits.
    """

    token: Hashable
    waits: bool
    reason: str
    where: str
    patience_s: float = 0.0


class Stuck(NamedTuple):
    """The work `name` has not moved for `seconds`; `overdue`: so long that the process has to end."""

    name: str
    reason: str
    where: str
    seconds: float
    overdue: bool

    def __str__(self) -> str:
        return f"{self.where} for {self.seconds:.0f} s"


class Detector:
    """Remembers since when each work stands still. What is not looked at any more, or not known, begins anew.

    `own` are the limits for OWN, `others` those for the other reasons.
    """

    def __init__(self, own: Limits, others: Limits) -> None:
        self._own, self._others = own, others
        self._still: dict[str, tuple[Hashable, float]] = {}

    def look(self, now: float, works: Mapping[str, Work]) -> list[Stuck]:
        """What of the work, by name, has stood still for too long at `now` (s, of a monotonic clock).

        In the order of REASONS.
        """
        still: dict[str, tuple[Hashable, float]] = {}
        found = []
        for name, work in works.items():
            mark = (work.waits, work.token)
            seen, since = self._still.get(name, (None, now))
            if not work.waits or seen != mark:
                since = now
            still[name] = (mark, since)
            limits = self._own if work.reason in OWN else self._others
            seconds = now - since
            said, overdue = (bool(limit) and seconds >= limit + work.patience_s for limit in limits)
            if work.waits and (said or overdue):
                found.append(Stuck(name, work.reason, work.where, seconds, overdue))
        self._still = still
        return sorted(found, key=lambda one: REASONS.index(one.reason))
