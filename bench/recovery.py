"""The duration of a restart: with the disk, and with an empty disk from the changelog."""

from __future__ import annotations

import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from bench.data import DataSet
from bench.measure import Bench
from bench.observer import Observer
from bench.report import describe_run, median, rounded, store_raw_numbers, table
from bench.sides import BY_BOTH, BY_USER, STREAMS, RunContext, Side, find_side, has_setting
from local.process import LocalProcess, wait_ready

HEADING = "Recovery"
STOP_TIMEOUT_S = 40
RECOVERY_TIMEOUT_S = 600
#: Log lines about the recovery; they start with a time.
RECOVERY_LINE = re.compile(r"\[20.*(recover|restor|changelog|\bready\b)", re.IGNORECASE)
#: The log line of Lately and of bench/streams after the changelog has been read.
RESTORED_LINE = re.compile(r"restored (\d+) records in ([\d.]+) s")
#: A smaller difference between two starts is not significant.
MIN_DIFFERENCE_S = 1.0
HOW = """\
The process reads all orders and is stopped (SIGTERM). When its group is empty, it is started again:
once with its disk, and once with an empty disk. The seconds are those from the start of the process
until it is ready: for Lately the first 200 of /readyz, for Kafka Streams the state RUNNING.
"Changelog records" is the sum of the end offsets of the changelog (with transactions it includes
the markers of the broker). records/s is calculated in three ways. "With the start": records /
seconds with an empty disk. "Without the start": records / (seconds with an empty disk - seconds
with the disk), if that difference is at least a second. "As it says": the time from the first
record to the last in the log of the process."""


def recovery(bench: Bench, data: DataSet, rounds: int) -> str:
    """Measure Lately and Kafka Streams, and return the text of the section."""
    bench.prepare(data)
    ours = BY_USER if has_setting("by_product") else BY_BOTH
    rows, log, raw = [], "", {}
    for name, is_ready in ((ours, is_worker_ready), (f"{STREAMS}, 1 thread", is_streams_running)):
        result = raw[name] = measure_restarts(bench, find_side(name), data, is_ready, rounds)
        with_disk_s, without_disk_s, total = (
            median(result.with_disk_s),
            median(result.without_disk_s),
            sum(result.records.values()),
        )
        difference_s = without_disk_s - with_disk_s
        rows.append([
            name, f"{with_disk_s:.1f}", f"{without_disk_s:.1f}", f"{total:,}", rounded(total / without_disk_s),
            rounded(total / difference_s) if difference_s >= MIN_DIFFERENCE_S else "-",
            rounded(median(result.logged_rates)) if result.logged_rates else "-",
        ])  # fmt: skip
        log = log or "\n".join(result.log)
    store_raw_numbers("recovery", raw)
    head = ["side", "s with its disk", "s with an empty disk", "changelog records"]
    head += ["records/s with the start", "without the start", "as it says"]
    return (
        f"After {data}; medians of {rounds}.\n\n{table(head, rows)}\n\n{HOW}\n\n"
        f"What Lately logged of its last recovery from an empty disk:\n\n```\n{log or '(nothing)'}\n```\n\n"
        f"{describe_run()}"
    )


@dataclass
class Restarts:
    """The restarts of one side: seconds until ready, changelog records, logged rates and lines."""

    with_disk_s: list[float] = field(default_factory=list)
    without_disk_s: list[float] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=dict)
    logged_rates: list[float] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


def measure_restarts(
    bench: Bench, side: Side, data: DataSet, is_ready: Callable[[LocalProcess, RunContext], bool], rounds: int
) -> Restarts:
    """Read the data once, then restart with and without the disk, `rounds` times."""
    context = bench.create_context(data)
    process, result = side.create_process(context), Restarts()

    def measure_start() -> float:
        began = time.monotonic()
        process.start()
        wait_ready(process, lambda: is_ready(process, context), RECOVERY_TIMEOUT_S, "readiness")
        return time.monotonic() - began

    def stop() -> None:
        process.stop(STOP_TIMEOUT_S)
        wait_until_empty(bench.kafka, context.group)

    with bench.running(context, process):
        bench.ingest(process, context)
        stop()
        observer = Observer(bench.kafka, data, context.group)
        result.records = observer.changelog_records()
        observer.close()
        for _ in range(rounds):
            result.with_disk_s.append(measure_start())
            stop()
            shutil.rmtree(context.folder / "state")
            result.without_disk_s.append(measure_start())
            log = process.tail(1000)
            result.log = [line[:200] for line in log.splitlines() if RECOVERY_LINE.match(line)][:20]
            for records, seconds in RESTORED_LINE.findall(log)[-1:]:
                result.logged_rates.append(int(records) / max(float(seconds), 0.01))
            stop()
            bench.log(
                f"{side.name}: ready after {result.with_disk_s[-1]:.1f} s with its disk, "
                f"{result.without_disk_s[-1]:.1f} s without"
            )
    return result


def is_worker_ready(_: LocalProcess, context: RunContext) -> bool:
    """Return True if the worker of Lately is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{context.port}/readyz", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def is_streams_running(process: LocalProcess, _: RunContext) -> bool:
    """Return True if Kafka Streams has restored its store and reads again."""
    return "state RUNNING" in process.tail(200)


def wait_until_empty(kafka: str, group: str) -> None:
    """Wait until the group has no members: a remaining member would delay the restart."""
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    for _ in range(600):
        state = admin.describe_consumer_groups([group])[group].result().state
        if state in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD):
            return
        time.sleep(0.1)
