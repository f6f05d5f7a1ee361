"""Slow down the agents of background topics while there is a backlog of orders."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from chunks import ChunkedApp

#: While more than MIN_BACKLOG orders wait, an agent of a background topic uses this share of its
#: time.
SHARE, MIN_BACKLOG = 0.04, 1_000
#: The longest pause, in seconds: a pause also delays a rebalance.
MAX_PAUSE_S = 1.0


class Throttle:
    """Pauses agents while there is a backlog in the topic `orders`."""

    def __init__(self, app: ChunkedApp, orders: str) -> None:
        self._app, self._orders = app, orders
        #: Topic -> the number of its records processed so far: a step of many records takes long.
        self.records: Counter[str] = Counter()

    async def pause(self, started_at: float, topic: str) -> None:
        """Count a record of `topic`, and pause in proportion to the time that it took.

        `started_at` is the time.perf_counter at the start of the record.
        """
        self.records[topic] += 1
        spent_s = time.perf_counter() - started_at
        await asyncio.sleep(min(MAX_PAUSE_S, spent_s / SHARE - spent_s) if self._has_backlog() else 0)

    def _has_backlog(self) -> bool:
        # During a rebalance no orders are read, so a pause would help nobody.
        if not self._app.flow_control.is_active():
            return False
        backlog = 0
        for tp, task in self._app.tables.partition_tasks.items():
            if tp.topic == self._orders:
                backlog += max(0, (self._app.consumer.high_watermark(tp) or 0) - task.position)
        return backlog > MIN_BACKLOG
