"""Decides which partitions of tables are lost, and why (pure functions).

docs/decisions/010-lost-state.md has the reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

#: The reasons of a loss, which are labels of a metric, and their explanations.
EMPTIED, CUT, SHORT, INTERRUPTED, DERIVED, BEHIND, EXPIRED = REASONS = (
    "emptied", "cut", "short", "interrupted", "derived", "behind", "expired",
)  # fmt: skip
_EXPLANATIONS = {
    EMPTIED: "its changelog has no beginning: it was deleted, emptied, or written by an earlier version",
    CUT: "its changelog has lost its beginning, the disk of this worker contains all of it",
    SHORT: "its changelog has lost its end: it ends before the state on the disk of this worker",
    INTERRUPTED: "a rebuild of it was interrupted",
    DERIVED: "it is derived from a table that cannot be restored completely",
    BEHIND: "an earlier version has changed the table from which it is derived, and not this table",
    EXPIRED: "older records of its topic are gone, and were never read",
}


class RestoredState(NamedTuple):
    """State of a partition of a table after its changelog was read.

    `position` is its position in the source topic. `has_lost_start` and `has_lost_end` describe the
    changelog. `derived_from` is the table from which it can be rebuilt; None: from the source
    topic. With `follows_base` each transaction that changes that table changes this one.
    """

    has_beginning: bool
    position: int | None
    has_lost_start: bool = False
    has_lost_end: bool = False
    derived_from: str | None = None
    follows_base: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether the state contains everything up to its position."""
        return self.has_beginning and self.position is not None and not self.has_lost_end


class Loss(NamedTuple):
    """A partition of a table to rebuild.

    `is_permanent`: older records of its topic are gone for ever.
    """

    table: str
    partition: int
    reason: str
    is_permanent: bool

    def __str__(self) -> str:
        return f"{self.table}[{self.partition}]: {_EXPLANATIONS[self.reason]}"


class RebuildPlan(NamedTuple):
    """How to continue with a source partition.

    `position`: the next source offset; past the end of the topic, nothing can be done. `first`: the
    first offset that still exists. `new`: the tables that were never written. `losses`: the tables
    to rebuild, in this order.
    """

    position: int
    first: int
    new: tuple[str, ...]
    losses: tuple[Loss, ...]


def plan_rebuild(
    partition: int, states: Mapping[str, RestoredState], committed: int | None, earliest: int, end: int
) -> RebuildPlan:
    """Plan the rebuild of the tables of a source partition.

    The partition contains the offsets from `earliest` to before `end`.

    Every complete table contains all effects up to the highest position. A lost table may have been
    further: at least at the offset `committed` by the group. Without any position the partition is
    new.
    """
    complete = [state.position for state in states.values() if state.is_complete]
    lost = [state.position for state in states.values() if not state.is_complete]
    candidates = (*complete, *lost, *([committed] if lost else []))
    positions = [position for position in candidates if position is not None]
    if not positions:
        losses = [Loss(name, partition, EXPIRED, True) for name in states] if earliest else []
        return RebuildPlan(earliest, earliest, tuple(states), tuple(losses))
    position = max(positions)
    is_topic_lost = not complete and position > end  # the topic was lost together with its tables
    position = earliest if is_topic_lost else position
    is_partial = earliest > 0 or is_topic_lost
    reasons = {
        name: reason
        for name, state in states.items()
        if (reason := _reason(state) or _find_lag(state, states)) is not None
    }
    partial_tables = {name for name, reason in reasons.items() if is_partial and reason != CUT}
    losses = []
    for name, state in sorted(states.items(), key=lambda pair: pair[1].derived_from is not None):
        is_missing = (name if state.derived_from is None else state.derived_from) in partial_tables
        reason = reasons.get(name, DERIVED if is_missing else EXPIRED if position < earliest else None)
        if reason is not None:
            losses.append(Loss(name, partition, reason, reason == EXPIRED or (reason != CUT and is_missing)))
    return RebuildPlan(position, earliest, (), tuple(losses))


def _find_lag(state: RestoredState, states: Mapping[str, RestoredState]) -> str | None:
    base = states.get(state.derived_from or "")
    if not state.follows_base or base is None or not base.is_complete:
        return None
    return BEHIND if (state.position or 0) < (base.position or 0) else None


def _reason(state: RestoredState) -> str | None:
    if state.has_lost_end:
        return SHORT
    if not state.has_beginning:
        return EMPTIED
    if state.position is None:
        return INTERRUPTED
    return CUT if state.has_lost_start else None
