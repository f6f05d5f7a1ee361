"""Runs one side once over one data set and takes its measure from outside."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.data import DataSet, ensure_written
from bench.observer import Look, Observer, delete_topics
from bench.sides import FOLDER, Place, Side
from bench.usage import Usage
from local.kafka import Kafka
from local.process import LocalProcess, ServerFailed, server_failure

SECONDS_BETWEEN_LOOKS = 0.05
SECONDS_THAT_COUNT = 2
#: A side that has not begun by then never will.
SECONDS_TO_BEGIN = 90


@dataclass(frozen=True)
class Result:
    """What one run of one side came to."""

    orders: int
    seconds: float
    #: Orders/s of the second half: without what a side does slowly at its beginning, as a JVM that still compiles.
    later: float | None
    #: Orders/s until the orders themselves were read, whatever was left of the topics in between.
    alone: float
    peak_mib: float
    cpu_s: float
    #: The share of the machine that neither the side nor the broker nor the observer had: what disturbed the run.
    elsewhere: float
    whole: bool

    @property
    def rate(self) -> float:
        """Orders per second."""
        return self.orders / self.seconds


class Bench:
    """The broker that all sides share, and how long a side may take for one data set."""

    def __init__(self, kafka: Kafka, patience_s: float, say: Callable[[str], None] = print) -> None:
        self.kafka = kafka.address
        self.broker = kafka.process
        self.patience_s = patience_s
        self.say = say
        self.runs = 0
        self.topics: set[str] = set()

    def prepare(self, data: DataSet) -> None:
        """Write the data before anything is measured."""
        if data.topic in self.topics:
            return
        began = time.monotonic()
        ensure_written(self.kafka, data)
        self.topics.add(data.topic)
        self.say(f"wrote {data} ({time.monotonic() - began:.0f} s)")

    def place(self, data: DataSet) -> Place:
        """A group nobody has used and a folder nobody has written to."""
        self.runs += 1
        place = Place(self.kafka, data, f"bench-{self.runs}")
        shutil.rmtree(place.folder, ignore_errors=True)
        return place

    @contextmanager
    def running(self, place: Place, process: LocalProcess) -> Iterator[LocalProcess]:
        """Start the process; at the end kill it and remove its topics and its folder."""
        try:
            process.start()
            yield process
        finally:
            process.kill()
            self.clear(place)

    def clear(self, place: Place) -> None:
        """Remove what the run left on the broker and on the disk; its log stays."""
        delete_topics(self.kafka, self.topics)
        shutil.rmtree(place.folder / "state", ignore_errors=True)

    def run(self, side: Side, data: DataSet) -> Result:
        """Measure `side` once."""
        self.prepare(data)
        place = self.place(data)
        with self.running(place, side.make(place)) as process:
            result = self.own_time(process) if side.own_clock else self.ingest(process, place, side.bound)
        self.say(
            f"{side.name}: {result.rate:,.0f} orders/s ({result.orders:,} in {result.seconds:.1f} s), "
            f"{result.peak_mib:,.0f} MiB, {result.elsewhere:.0%} of the machine was busy elsewhere"
        )
        return result

    def ingest(self, process: LocalProcess, place: Place, bound: int | None = None) -> Result:
        """Watch a running side until it has committed `bound` orders (or all), or the patience is over.

        Raises ServerFailed when the side ends or does not begin.
        """
        goal = min(bound or place.data.orders, place.data.orders)
        usage, started = Usage(process.pid, (self.broker.pid,)), time.monotonic()
        observer = Observer(self.kafka, place.data, place.group)
        looks: list[Look] = []
        try:
            while True:
                look = observer.look()
                if not process.is_running:
                    raise server_failure(process, f"{process.name} ended")
                if looks or look.committed or look.changelog:
                    looks.append(look)
                elif look.at - started > SECONDS_TO_BEGIN:
                    raise server_failure(process, f"{process.name} did not begin within {SECONDS_TO_BEGIN} s")
                if look.committed >= goal and look.behind == 0:
                    usage.look()
                    return summary(looks, usage, whole=True)
                if looks and look.at - looks[0].at > self.patience_s:
                    usage.look()
                    return summary(looks, usage, whole=False)
                if len(looks) % 20 == 0:
                    usage.look()
                time.sleep(max(0.0, look.at + SECONDS_BETWEEN_LOOKS - time.monotonic()))
        finally:
            observer.close()

    def own_time(self, process: LocalProcess) -> Result:
        """Wait for a program that ends by itself and prints its orders and seconds."""
        usage, end = Usage(process.pid, (self.broker.pid,)), time.monotonic() + self.patience_s + SECONDS_TO_BEGIN
        while process.is_running and time.monotonic() < end:
            usage.look()
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if process.is_running or process.child.returncode != 0:
            raise server_failure(process, f"{process.name} did not end well")
        said = json.loads(process.tail(1))
        return Result(
            said["orders"],
            said["seconds"],
            None,
            said["orders"] / said["seconds"],
            usage.peak_mib,
            usage.cpu_s,
            usage.elsewhere,
            whole=True,
        )


def summary(looks: list[Look], usage: Usage, whole: bool) -> Result:
    """The result of all looks from the first sign of work to the end; raises ServerFailed when there are too few."""
    first, last = looks[0], looks[-1]
    if last.at - first.at < SECONDS_BETWEEN_LOOKS or last.committed == first.committed:
        raise ServerFailed("the side was too fast or too slow to be measured with so few orders")
    middle = (first.committed + last.committed) / 2
    half = next(look for look in looks if look.committed >= middle)
    later = None
    # A side commits only every 500 ms: a few steps are too coarse.
    if last.at - half.at > SECONDS_THAT_COUNT:
        later = (last.committed - half.committed) / (last.at - half.at)
    orders, seconds = last.committed - first.committed, last.at - first.at
    read = next(look for look in looks if look.committed == last.committed)
    alone = orders / (read.at - first.at)
    return Result(orders, seconds, later, alone, usage.peak_mib, usage.cpu_s, usage.elsewhere, whole)


def clean_folder() -> None:
    """Remove what earlier runs left in the folder, but what was built for the peers."""
    for name in ("broker", "run"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
