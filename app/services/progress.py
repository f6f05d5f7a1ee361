"""The progress of this worker in the topics that its agents read: positions, lag and pace."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from faust.types import TP
from mode import Service

from app import metrics
from chunks import ChunkedApp

#: Seconds between two samples, and the number kept: the pace is computed from the first and the
#: last.
SAMPLE_EVERY_S, MAX_SAMPLES = 2.0, 6


class PartitionProgress(NamedTuple):
    """The progress in a partition.

    All records below the offset `position` are durable; the partition ended at `end`.

    `end` is None before the first fetch; `pace` is in offsets per second, None before there are two
    samples.
    """

    topic: str
    partition: int
    position: int
    end: int | None
    pace: float | None

    @property
    def lag(self) -> int | None:
        """The number of offsets left to read."""
        return None if self.end is None else max(0, self.end - self.position)


class _Sample(NamedTuple):
    at: float
    positions: Mapping[TP, int]
    requests: float


class ReadProgress(Service):
    """Samples the positions every two seconds."""

    def __init__(self, app: ChunkedApp, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._app = app
        self._samples: deque[_Sample] = deque(maxlen=MAX_SAMPLES)

    @Service.timer(SAMPLE_EVERY_S)
    async def _take_sample(self) -> None:
        positions = {tp: task.durable for tp, task in self._app.tables.partition_tasks.items()}
        self._samples.append(_Sample(time.monotonic(), positions, _count_requests()))
        for table in self._app.tables.values():
            metrics.KEYS.labels(table.name).set(sum(store.estimated_keys for store in table.stores.values()))

    def partitions(self) -> list[PartitionProgress]:
        """Return the progress in the partitions that this worker reads, by topic and partition."""
        return [
            PartitionProgress(
                tp.topic, tp.partition, task.durable, self._app.consumer.high_watermark(tp), self._pace(tp)
            )
            for tp, task in sorted(self._app.tables.partition_tasks.items())
        ]

    def requests_per_s(self) -> float | None:
        """Return the HTTP requests answered per second; None before there are two samples."""
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        return (last.requests - first.requests) / (last.at - first.at)

    def _pace(self, tp: TP) -> float | None:
        samples = [(sample.at, sample.positions[tp]) for sample in self._samples if tp in sample.positions]
        if len(samples) < 2:
            return None
        (since, first), (until, last) = samples[0], samples[-1]
        return max(0, last - first) / (until - since)


def _count_requests() -> float:
    return sum(
        sample.value
        for metric in metrics.REQUESTS.collect()
        for sample in metric.samples
        if sample.name.endswith("_count")
    )
