"""How fresh a table is: up to which moment of the shop's database it knows everything, and how sure that is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from aiokafka.structs import ConsumerRecord

from app import metrics
from app.control import source_state
from app.control.generation import taken_over
from app.core import app, settings
from app.kafka.tail import Follower
from app.topics import Topics
from domain.differences import KINDS

#: A source says every second how it stands; so many of these are remembered for tables that are behind.
REMEMBERED = 600


class Freshness(NamedTuple):
    """Times are in microseconds since 1970 UTC; None is unknown.

    The table holds everything that was committed until `as_of`, which was `lag_ms` ago; `guarantee` says how sure that
    is, and `unseen` which changes (placed, changed, removed) are not seen at all. Rows ordered before `horizon` may be
    missing; None: none are. All that was there at `verified_at` was compared with the database, and equal.
    """

    as_of: int | None
    lag_ms: int | None
    guarantee: str
    horizon: int | None
    unseen: tuple[str, ...] = ()
    verified_at: int | None = None


class SourceView(Follower):
    """What the source last said of itself, read from the topic source-state as long as the worker runs."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(Topics(settings).source_state, **kwargs)
        self._statuses: deque[source_state.Status] = deque(maxlen=REMEMBERED)
        self._snapshot: source_state.SnapshotState | None = None
        self._verified: source_state.Verified | None = None
        self._wish: source_state.Wish | None = None
        #: Rows ordered before may be missing: worked out when something is heard, as each answer tells it.
        self._horizon: int | None = None

    def learn(self, record: ConsumerRecord) -> None:
        """Take one record of source-state over."""
        known = source_state.decode(record.key, record.value)
        if known is None:
            return
        if known[0] == source_state.STATUS:
            self._statuses.append(known[1])
            for level in source_state.LEVELS:
                metrics.GUARANTEE.labels(level).set(level == known[1].guarantee)
            metrics.OLDEST.set(known[1].oldest_pending_s)
        elif known[0] == source_state.SNAPSHOT:
            self._snapshot = known[1]
        elif known[0] == source_state.WISH:
            self._wish = known[1]
        elif known[0] == source_state.LAYOUT and known[1].after is not None:
            self.log.warning("%s; this worker hears of no new order any more", taken_over(settings, known[1]))
        elif known[0] == source_state.VERIFIED:
            self._verified = known[1]
            for kind in KINDS:
                metrics.DIFFERENCES.labels(kind).set(known[1].differences.get(kind, 0))
        if source_state.ungranted(self._wish, self._snapshot):
            self._horizon = source_state.moment(source_state.EVERYTHING)
        else:
            self._horizon = None if self._snapshot is None else source_state.moment(self._snapshot.horizon)

    @property
    def newest(self) -> source_state.Status | None:
        """What the source said last; None when none has ever run."""
        return self._statuses[-1] if self._statuses else None

    @property
    def snapshot(self) -> source_state.SnapshotState | None:
        """How far the last snapshot is; None when none was ever taken."""
        return self._snapshot

    @property
    def verified(self) -> source_state.Verified | None:
        """What the last comparison with the database has found; None when there never was one."""
        return self._verified

    def freshness(self, partition: int, position: int | None) -> Freshness:
        """How fresh a table is that holds everything of a partition of `orders` below the offset `position`.

        Where no `lately source` has ever run, nothing is known of rows that may be missing.
        """
        verified_at = None if self._verified is None else self._verified.clean_at
        newest = self.newest
        if newest is None:
            return Freshness(None, None, source_state.NONE, self._horizon, (), verified_at)
        as_of = _as_of(reversed(self._statuses), partition, position or 0)
        lag_ms = None if as_of is None else max(0, time.time_ns() // 1000 - as_of) // 1000
        return Freshness(as_of, lag_ms, newest.guarantee, self._horizon, newest.unseen, verified_at)


def _as_of(newest_first: Iterable[source_state.Status], partition: int, position: int) -> int | None:
    for status in newest_first:
        if status.as_of is not None and position >= status.offsets.get(partition, 0):
            return status.as_of
    return None


source_view = SourceView()
app.service(source_view)
