"""Runs a side once over a data set, and measures it from outside."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.data import DataSet, ensure_written
from bench.observer import Observer, OffsetSample, delete_topics
from bench.sides import FOLDER, RunContext, Side
from bench.usage import Usage
from local.kafka import Kafka
from local.process import LocalProcess, ServerFailed, server_failure

POLL_INTERVAL_S = 0.05
MIN_SECOND_HALF_S = 2
#: A side that has not started to work by then has failed.
BEGIN_TIMEOUT_S = 90


@dataclass(frozen=True)
class RunResult:
    """The result of one run of one side."""

    orders: int
    seconds: float
    #: Orders/s of the second half, which excludes a slow start, such as that of a JVM that still
    #: compiles.
    second_half_rate: float | None
    #: Orders/s until the topic `orders` was read, without the topics between the agents.
    orders_only_rate: float
    peak_mib: float
    cpu_s: float
    #: The share of the machine that other processes used, which disturbed the run.
    foreign_share: float
    is_complete: bool

    @property
    def rate(self) -> float:
        """Orders per second."""
        return self.orders / self.seconds


class Bench:
    """The broker that all sides share, and the time limit of a side for one data set."""

    def __init__(self, kafka: Kafka, patience_s: float, log: Callable[[str], None] = print) -> None:
        self.kafka = kafka.address
        self.broker = kafka.process
        self.patience_s = patience_s
        self.log = log
        self.runs = 0
        self.topics: set[str] = set()

    def prepare(self, data: DataSet) -> None:
        """Write the data to Kafka, before the measurement."""
        if data.topic in self.topics:
            return
        began = time.monotonic()
        ensure_written(self.kafka, data)
        self.topics.add(data.topic)
        self.log(f"wrote {data} ({time.monotonic() - began:.0f} s)")

    def create_context(self, data: DataSet) -> RunContext:
        """Return a context with a new consumer group and an empty folder."""
        self.runs += 1
        context = RunContext(self.kafka, data, f"bench-{self.runs}")
        shutil.rmtree(context.folder, ignore_errors=True)
        return context

    @contextmanager
    def running(self, context: RunContext, process: LocalProcess) -> Iterator[LocalProcess]:
        """Start the process, and at the end kill it and remove its topics and its folder."""
        try:
            process.start()
            yield process
        finally:
            process.kill()
            self.clear(context)

    def clear(self, context: RunContext) -> None:
        """Remove the topics and the state of the run; its log remains."""
        delete_topics(self.kafka, self.topics)
        shutil.rmtree(context.folder / "state", ignore_errors=True)

    def run(self, side: Side, data: DataSet) -> RunResult:
        """Measure `side` once."""
        self.prepare(data)
        context = self.create_context(data)
        with self.running(context, side.create_process(context)) as process:
            result = (
                self.read_own_result(process) if side.is_self_timed else self.ingest(process, context, side.max_orders)
            )
        self.log(
            f"{side.name}: {result.rate:,.0f} orders/s ({result.orders:,} in {result.seconds:.1f} s), "
            f"{result.peak_mib:,.0f} MiB, other processes used {result.foreign_share:.0%} of the machine"
        )
        return result

    def ingest(self, process: LocalProcess, context: RunContext, max_orders: int | None = None) -> RunResult:
        """Observe a side until it has committed `max_orders` orders, or until the time limit.

        Raises ServerFailed if the side ends or does not start to work.
        """
        goal = min(max_orders or context.data.orders, context.data.orders)
        usage, started = Usage(process.pid, (self.broker.pid,)), time.monotonic()
        observer = Observer(self.kafka, context.data, context.group)
        samples: list[OffsetSample] = []
        try:
            while True:
                sample = observer.sample()
                if not process.is_running:
                    raise server_failure(process, f"{process.name} ended")
                if samples or sample.committed or sample.changelog:
                    samples.append(sample)
                elif sample.time - started > BEGIN_TIMEOUT_S:
                    raise server_failure(process, f"{process.name} did not start to work within {BEGIN_TIMEOUT_S} s")
                if sample.committed >= goal and sample.lag == 0:
                    usage.sample()
                    return summarize(samples, usage, is_complete=True)
                if samples and sample.time - samples[0].time > self.patience_s:
                    usage.sample()
                    return summarize(samples, usage, is_complete=False)
                if len(samples) % 20 == 0:
                    usage.sample()
                time.sleep(max(0.0, sample.time + POLL_INTERVAL_S - time.monotonic()))
        finally:
            observer.close()

    def read_own_result(self, process: LocalProcess) -> RunResult:
        """Wait for a side that measures itself: it prints its orders and seconds, and ends."""
        usage, end = Usage(process.pid, (self.broker.pid,)), time.monotonic() + self.patience_s + BEGIN_TIMEOUT_S
        while process.is_running and time.monotonic() < end:
            usage.sample()
            time.sleep(POLL_INTERVAL_S)
        if process.is_running or process.child.returncode != 0:
            raise server_failure(process, f"{process.name} failed")
        output = json.loads(process.tail(1))
        return RunResult(
            output["orders"],
            output["seconds"],
            None,
            output["orders"] / output["seconds"],
            usage.peak_mib,
            usage.cpu_s,
            usage.foreign_share,
            is_complete=True,
        )


def summarize(samples: list[OffsetSample], usage: Usage, is_complete: bool) -> RunResult:
    """Return the result of the samples. Raises ServerFailed if there are too few."""
    first, last = samples[0], samples[-1]
    if last.time - first.time < POLL_INTERVAL_S or last.committed == first.committed:
        raise ServerFailed("the side was too fast or too slow to be measured with so few orders")
    middle = (first.committed + last.committed) / 2
    middle_sample = next(look for look in samples if look.committed >= middle)
    second_half_rate = None
    # A side commits only every 500 ms: a short time would have too few commits.
    if last.time - middle_sample.time > MIN_SECOND_HALF_S:
        second_half_rate = (last.committed - middle_sample.committed) / (last.time - middle_sample.time)
    orders, seconds = last.committed - first.committed, last.time - first.time
    end_sample = next(look for look in samples if look.committed == last.committed)
    orders_only_rate = orders / (end_sample.time - first.time)
    return RunResult(
        orders,
        seconds,
        second_half_rate,
        orders_only_rate,
        usage.peak_mib,
        usage.cpu_s,
        usage.foreign_share,
        is_complete,
    )


def clean_folder() -> None:
    """Remove the files of earlier runs, but not the programs of the peers."""
    for name in ("broker", "run"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
