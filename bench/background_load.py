"""Background threads of a measurement: load, and observers of the side."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from itertools import pairwise

from confluent_kafka import Consumer, TopicPartition

from bench.data import Feed
from bench.usage import Usage

#: The poll interval of the changelog, in seconds, which is the precision of a pause.
CHANGELOG_POLL_S = 0.02


class BackgroundThread:
    """A repeated action in a thread."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


class OrderLoad(BackgroundThread):
    """Writes orders at a steady rate."""

    def __init__(self, feed: Feed, rate: int) -> None:
        super().__init__()
        self._feed, self._rate = feed, rate

    def _run(self) -> None:
        began, initial = time.monotonic(), self._feed.written
        while not self._ended.wait(0.01):
            due = int((time.monotonic() - began) * self._rate)
            self._feed.write(initial + due - self._feed.written)


class ChangelogFollower(BackgroundThread):
    """Reads a changelog, and stores its newest values and the times of new records."""

    def __init__(self, kafka: str, topic: str, partitions: int) -> None:
        super().__init__()
        self.activity: list[list[float]] = [[] for _ in range(partitions)]
        self.newest: dict[bytes, bytes] = {}
        self._reader = Consumer({
            "bootstrap.servers": kafka, "group.id": f"{topic}-follower", "enable.auto.commit": False,
            "isolation.level": "read_committed", "fetch.wait.max.ms": int(CHANGELOG_POLL_S * 1000), "log_level": 0,
        })  # fmt: skip
        self._reader.assign([TopicPartition(topic, number, 0) for number in range(partitions)])

    def _run(self) -> None:
        while not self._ended.is_set():
            records = self._reader.consume(10_000, CHANGELOG_POLL_S)
            now = time.monotonic()
            # Records of a side about itself, such as the positions of Lately, are not results.
            order_records = [record for record in records if not record.error() and b"user-" in (record.key() or b"")]
            self.newest.update((record.key(), record.value()) for record in order_records)
            for partition in {record.partition() for record in order_records}:
                self.activity[partition].append(now)
        self._reader.close()

    def idle_s(self) -> list[float]:
        """Return for each partition the seconds since its last new record."""
        now = time.monotonic()
        return [now - times[-1] if times else 0.0 for times in self.activity]


class UsageSampler(BackgroundThread):
    """Samples the usage of the machine once a second."""

    def __init__(self, usage: Usage) -> None:
        super().__init__()
        self._usage = usage

    def _run(self) -> None:
        self._usage.sample()
        while not self._ended.wait(1.0):
            self._usage.sample()


def longest_gap(activity: list[float], begins: float, ends: float) -> float:
    """Return the longest gap between two times of `activity` (sorted), from `begins` to `ends`."""
    moments = [begins, *activity[bisect_right(activity, begins) : bisect_left(activity, ends)], ends]
    return max(later - earlier for earlier, later in pairwise(moments))
