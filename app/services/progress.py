"""How far this worker is in the topics that its agents read, and how fast."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from faust.types import TP
from mode import Service

from app import metrics
from app.core import app

#: Seconds between two looks, and how many are kept: the pace is that between the first and the last.
LOOK_EVERY_S, LOOKS = 2.0, 6


class Reading(NamedTuple):
    """A partition that this worker reads: all below the offset `position` is durable, and it ended at `end`.

    `end` is None before the first fetch; `pace` is in offsets per second, None before there are two looks.
    """

    topic: str
    partition: int
    position: int
    end: int | None
    pace: float | None

    @property
    def lag(self) -> int | None:
        """How many offsets are left to read."""
        return None if self.end is None else max(0, self.end - self.position)


class _Look(NamedTuple):
    at: float
    positions: Mapping[TP, int]
    requests: float


class Progress(Service):
    """Looks every two seconds, as long as the worker runs."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._looks: deque[_Look] = deque(maxlen=LOOKS)

    @Service.timer(LOOK_EVERY_S)
    async def _look(self) -> None:
        positions = {tp: ledger.durable for tp, ledger in app.tables.ledgers.items()}
        self._looks.append(_Look(time.monotonic(), positions, _requests()))
        for name, table in app.tables.items():
            metrics.KEYS.labels(name).set(sum(store.keys for store in table.stores.values()))

    def readings(self) -> list[Reading]:
        """All partitions that this worker reads now, by topic and partition."""
        return [
            Reading(tp.topic, tp.partition, ledger.durable, app.consumer.end_of(tp), self._pace(tp))
            for tp, ledger in sorted(app.tables.ledgers.items())
        ]

    def requests(self) -> float | None:
        """HTTP requests answered per second; None before there are two looks."""
        if len(self._looks) < 2:
            return None
        first, last = self._looks[0], self._looks[-1]
        return (last.requests - first.requests) / (last.at - first.at)

    def _pace(self, tp: TP) -> float | None:
        known = [(look.at, look.positions[tp]) for look in self._looks if tp in look.positions]
        if len(known) < 2:
            return None
        (since, first), (until, last) = known[0], known[-1]
        return max(0, last - first) / (until - since)


def _requests() -> float:
    return sum(
        one.value for metric in metrics.REQUESTS.collect() for one in metric.samples if one.name.endswith("_count")
    )


@app.on_partitions_assigned.connect
async def _assigned(*_: object, **__: object) -> None:
    metrics.REBALANCES.inc()


progress = Progress()
app.service(progress)
