"""Which partitions of tables are lost, and why: a pure judgement of what was found of them.

The reasoning is in docs/decisions/010-lost-state.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

#: Reasons, as they are counted, and what they mean.
EMPTIED, CUT, SHORT, INTERRUPTED, DERIVED, EXPIRED = REASONS = (
    "emptied", "cut", "short", "interrupted", "derived", "expired",
)  # fmt: skip
_MEANING = {
    EMPTIED: "its changelog has no beginning: it was deleted, emptied, or written by an earlier version",
    CUT: "its changelog has lost its beginning, this worker's disk has all of it",
    SHORT: "its changelog has lost its end: it ends before what this worker's disk had",
    INTERRUPTED: "a rebuild of it was interrupted",
    DERIVED: "it follows from a table of which not everything comes back",
    EXPIRED: "older records of its topic are gone, and were never read",
}


class RestoredState(NamedTuple):
    """What was found of a partition of a table once its changelog was read.

    Whether it has a beginning, its position in the source topic, whether the changelog has lost that beginning, or its
    end, and the table that it can be rebuilt from; None: from the source topic.
    """

    has_beginning: bool
    position: int | None
    has_lost_start: bool = False
    has_lost_end: bool = False
    derived_from: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the state is all that was folded up to its position, or a later one that did not change it."""
        return self.has_beginning and self.position is not None and not self.has_lost_end


class Loss(NamedTuple):
    """A partition of a table that has to be made anew; `missing`: older records of its topic are gone for ever."""

    table: str
    partition: int
    reason: str
    is_permanent: bool

    def __str__(self) -> str:
        return f"{self.table}[{self.partition}]: {_MEANING[self.reason]}"


class RebuildPlan(NamedTuple):
    """Where a source partition goes on; the tables to begin (it was never read), and those to make anew, in order.

    Of the records before `position` those from `first` on exist. Where it is ahead of the topic, nothing helps.
    """

    position: int
    first: int
    new: tuple[str, ...]
    losses: tuple[Loss, ...]


def plan_rebuild(
    partition: int, found: Mapping[str, RestoredState], committed: int | None, earliest: int, end: int
) -> RebuildPlan:
    """Judge the tables of a source partition, which lies between `earliest` and `end`.

    What was folded up to the highest position is in every whole table, or changed nothing there. A lost one may have
    been further than those: at least where the group has committed. Where nothing is known the partition is new.
    """
    whole = [one.position for one in found.values() if one.is_complete]
    lost = [one.position for one in found.values() if not one.is_complete]
    known = [one for one in (*whole, *lost, *([committed] if lost else [])) if one is not None]
    if not known:
        losses = [Loss(name, partition, EXPIRED, True) for name in found] if earliest else []
        return RebuildPlan(earliest, earliest, tuple(found), tuple(losses))
    position = max(known)
    anew = not whole and position > end  # the topic is as lost as they are
    position = earliest if anew else position
    partial = earliest > 0 or anew
    reasons = {name: reason for name, one in found.items() if (reason := _reason(one)) is not None}
    folded_in_part = {name for name, reason in reasons.items() if partial and reason != CUT}
    losses = []
    for name, one in sorted(found.items(), key=lambda item: item[1].derived_from is not None):
        if one.derived_from is None:
            missing = name in folded_in_part
        else:
            missing = one.derived_from in folded_in_part
        reason = reasons.get(name, DERIVED if missing else EXPIRED if position < earliest else None)
        if reason is not None:
            losses.append(Loss(name, partition, reason, reason == EXPIRED or (reason != CUT and missing)))
    return RebuildPlan(position, earliest, (), tuple(losses))


def _reason(one: RestoredState) -> str | None:
    if one.has_lost_end:
        return SHORT
    if not one.has_beginning:
        return EMPTIED
    if one.position is None:
        return INTERRUPTED
    return CUT if one.has_lost_start else None
