"""What runs beside a measurement, each in a thread of its own: the load, and what looks at the side from outside."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from itertools import pairwise

from confluent_kafka import Consumer, TopicPartition

from bench.data import Feed
from bench.usage import Usage

#: The changelog is read in steps of so many seconds, which is as exact as a standstill can be told.
SECONDS_A_LOOK = 0.02


class Beside:
    """Something done again and again in a thread of its own."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


class Load(Beside):
    """Writes orders at a steady rate."""

    def __init__(self, feed: Feed, rate: int) -> None:
        super().__init__()
        self._feed, self._rate = feed, rate

    def _run(self) -> None:
        began, before = time.monotonic(), self._feed.written
        while not self._ended.wait(0.01):
            due = int((time.monotonic() - began) * self._rate)
            self._feed.write(before + due - self._feed.written)


class Follower(Beside):
    """Reads a changelog from its beginning, and notes when each partition had something new, and all newest values."""

    def __init__(self, kafka: str, topic: str, partitions: int) -> None:
        super().__init__()
        self.moved: list[list[float]] = [[] for _ in range(partitions)]
        self.newest: dict[bytes, bytes] = {}
        self._reader = Consumer({
            "bootstrap.servers": kafka, "group.id": f"{topic}-follower", "enable.auto.commit": False,
            "isolation.level": "read_committed", "fetch.wait.max.ms": int(SECONDS_A_LOOK * 1000), "log_level": 0,
        })  # fmt: skip
        self._reader.assign([TopicPartition(topic, number, 0) for number in range(partitions)])

    def _run(self) -> None:
        while not self._ended.is_set():
            records = self._reader.consume(10_000, SECONDS_A_LOOK)
            now = time.monotonic()
            # Notes of a side about itself, as the positions of Lately, are no work that was done.
            seen = [record for record in records if not record.error() and b"user-" in (record.key() or b"")]
            self.newest.update((record.key(), record.value()) for record in seen)
            for partition in {record.partition() for record in seen}:
                self.moved[partition].append(now)
        self._reader.close()

    def idle_s(self) -> list[float]:
        """For how long each partition has had nothing new."""
        now = time.monotonic()
        return [now - times[-1] if times else 0.0 for times in self.moved]


class Machine(Beside):
    """Looks once a second at what all of ours use of the machine."""

    def __init__(self, usage: Usage) -> None:
        super().__init__()
        self._usage = usage

    def _run(self) -> None:
        self._usage.look()
        while not self._ended.wait(1.0):
            self._usage.look()


def longest(moved: list[float], begins: float, ends: float) -> float:
    """The longest time between two moments of `moved`, which is sorted, from `begins` to `ends`."""
    moments = [begins, *moved[bisect_right(moved, begins) : bisect_left(moved, ends)], ends]
    return max(later - earlier for earlier, later in pairwise(moments))
