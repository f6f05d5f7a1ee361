"""The freshness of a table, from the status that the source reports."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from aiokafka.structs import ConsumerRecord

from app import metrics
from app.control import source_state
from app.control.generation import describe_successor
from app.control.source_state import LeaderStatus, SnapshotRequest, SnapshotState, TopicLayout, VerifyResult
from app.control.state_topic import create_codec
from app.kafka.tail import TopicTail
from app.settings import Settings
from app.topics import Topics
from domain.differences import KINDS

#: The source reports its status every second; the statuses of ten minutes are kept for tables with
#: a lag.
MAX_STATUSES = 600


class Freshness(NamedTuple):
    """How fresh a table is. Times are in microseconds since 1970 UTC; None is unknown.

    The table contains everything that was committed until `as_of`, which was `lag_ms` ago;
    `guarantee` is the level of certainty, and `unseen` the kinds of changes (changed, removed,
    cascade) that the source cannot see. Rows ordered before `horizon` may be missing; None: no rows
    are. The rows of `verified_at` were compared with the database, and were equal.
    """

    as_of: int | None
    lag_ms: int | None
    guarantee: str
    horizon: int | None
    unseen: tuple[str, ...] = ()
    verified_at: int | None = None


class SourceStatus(TopicTail):
    """The newest status of the source, from the topic source-state."""

    def __init__(self, settings: Settings, topics: Topics, **kwargs: Any) -> None:
        super().__init__(settings, topics.source_state, **kwargs)
        self._codec = create_codec(settings)
        self._statuses: deque[LeaderStatus] = deque(maxlen=MAX_STATUSES)
        self._snapshot: SnapshotState | None = None
        self._verified: VerifyResult | None = None
        self._request: SnapshotRequest | None = None
        #: Rows ordered before may be missing: computed once a record, because each response
        #: contains it.
        self._horizon: int | None = None

    def apply(self, record: ConsumerRecord) -> None:
        """Apply one record of source-state."""
        state = self._codec.decode(record)
        if state is None:
            return
        if isinstance(state, LeaderStatus):
            self._statuses.append(state)
            for level in source_state.GUARANTEE_LEVELS:
                metrics.GUARANTEE.labels(level).set(level == state.guarantee)
            metrics.OLDEST_PENDING_CHANGE.set(state.oldest_pending_s)
            metrics.set_problems(problem.kind for problem in state.problems)
        elif isinstance(state, SnapshotState):
            self._snapshot = state
        elif isinstance(state, SnapshotRequest):
            self._request = state
        elif isinstance(state, TopicLayout) and state.successor is not None:
            successor = describe_successor(self._settings, state.successor)
            self.log.warning("%s; this worker receives no new orders", successor)
        elif isinstance(state, VerifyResult):
            self._verified = state
            for kind in KINDS:
                metrics.DIFFERENCES.labels(kind).set(state.differences.get(kind, 0))
        if source_state.is_request_pending(self._request, self._snapshot):
            self._horizon = source_state.horizon_microseconds(source_state.MAX_HORIZON)
        else:
            snapshot = self._snapshot
            self._horizon = None if snapshot is None else source_state.horizon_microseconds(snapshot.horizon)

    @property
    def newest(self) -> LeaderStatus | None:
        """The newest status of the source; None when no source has ever run."""
        return self._statuses[-1] if self._statuses else None

    @property
    def snapshot(self) -> SnapshotState | None:
        """The progress of the last snapshot; None when there was no snapshot."""
        return self._snapshot

    @property
    def verified(self) -> VerifyResult | None:
        """The result of the last comparison with the database; None when there was none."""
        return self._verified

    def freshness(self, partition: int, position: int | None) -> Freshness:
        """Return the freshness of a table that contains a partition of `orders` below `position`.

        When no `lately source` has ever run, it is unknown which rows may be missing.
        """
        verified_at = None if self._verified is None else self._verified.clean_at
        newest = self.newest
        if newest is None:
            return Freshness(None, None, source_state.NONE, self._horizon, (), verified_at)
        as_of = _as_of(reversed(self._statuses), partition, position or 0)
        lag_ms = None if as_of is None else max(0, time.time_ns() // 1000 - as_of) // 1000
        return Freshness(as_of, lag_ms, newest.guarantee, self._horizon, newest.unseen_changes, verified_at)


def _as_of(newest_first: Iterable[LeaderStatus], partition: int, position: int) -> int | None:
    for status in newest_first:
        if status.as_of is not None and position >= status.offsets.get(partition, 0):
            return status.as_of
    return None
