"""How long a worker needs after a restart: with its disk, and from an empty disk out of the changelog."""

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
from bench.report import circumstances, keep_raw, median, rounded, table
from bench.sides import BY_BOTH, BY_USER, STREAMS, Place, Side, can_leave_out, side
from local.process import LocalProcess, wait_ready

HEADING = "Recovery"
SECONDS_TO_STOP = 40
SECONDS_TO_RECOVER = 600
#: Lines that begin with a time, not the tables of partitions that Faust draws.
TELLING = re.compile(r"\[20.*(recover|restor|changelog|\bready\b)", re.IGNORECASE)
#: What Lately logs, and bench/streams prints, when the changelog has been read.
RESTORED = re.compile(r"restored (\d+) records in ([\d.]+) s")
#: A smaller difference of two starts says nothing about what lies between them.
SECONDS_THAT_COUNT = 1.0
HOW = """\
After all orders were read the process is stopped (SIGTERM) and its group has become empty, then it is started again:
with its disk, and with an empty one. The seconds are those from the start of the process to readiness: for Lately the
first 200 of /readyz, for Kafka Streams the state RUNNING. Changelog records are the sum of the changelog's end
offsets (with transactions that includes the broker's marks). records/s is counted in three ways. "With the start":
records / seconds with an empty disk. "Without the start": records / (seconds with an empty disk - seconds with the
disk), where that difference is at least a second. "As it says": what the process itself logs about the time from the
first record to the last."""


def recovery(bench: Bench, data: DataSet, rounds: int) -> str:
    """Measure ours and Kafka Streams and return the text of the section."""
    bench.prepare(data)
    ours = BY_USER if can_leave_out("by_product") else BY_BOTH
    rows, log, raw = [], "", {}
    for name, is_ready in ((ours, serves), (f"{STREAMS}, 1 thread", runs)):
        seen = raw[name] = restarts(bench, side(name), data, is_ready, rounds)
        kept, empty, total = median(seen.kept), median(seen.empty), sum(seen.records.values())
        rows.append([
            name, f"{kept:.1f}", f"{empty:.1f}", f"{total:,}", rounded(total / empty),
            rounded(total / (empty - kept)) if empty - kept >= SECONDS_THAT_COUNT else "-",
            rounded(median(seen.said)) if seen.said else "-",
        ])  # fmt: skip
        log = log or "\n".join(seen.log)
    keep_raw("recovery", raw)
    head = ["side", "s with its disk", "s with an empty disk", "changelog records"]
    head += ["records/s with the start", "without the start", "as it says"]
    return (
        f"After {data}; medians of {rounds}.\n\n{table(head, rows)}\n\n{HOW}\n\n"
        f"What Lately logged of its last recovery from an empty disk:\n\n```\n{log or '(nothing)'}\n```\n\n"
        f"{circumstances()}"
    )


@dataclass
class Restarts:
    """What was seen of one side: seconds until ready, changelog offsets, its own records/s, its last log lines."""

    kept: list[float] = field(default_factory=list)
    empty: list[float] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=dict)
    said: list[float] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


def restarts(
    bench: Bench, one: Side, data: DataSet, is_ready: Callable[[LocalProcess, Place], bool], rounds: int
) -> Restarts:
    """Ingest once, then restart in both ways `rounds` times."""
    place = bench.place(data)
    process, seen = one.make(place), Restarts()

    def ready_after() -> float:
        began = time.monotonic()
        process.start()
        wait_ready(process, lambda: is_ready(process, place), SECONDS_TO_RECOVER, "readiness")
        return time.monotonic() - began

    def stop() -> None:
        process.stop(SECONDS_TO_STOP)
        wait_until_empty(bench.kafka, place.group)

    with bench.running(place, process):
        bench.ingest(process, place)
        stop()
        observer = Observer(bench.kafka, data, place.group)
        seen.records = observer.changelog_records()
        observer.close()
        for _ in range(rounds):
            seen.kept.append(ready_after())
            stop()
            shutil.rmtree(place.folder / "state")
            seen.empty.append(ready_after())
            log = process.tail(1000)
            seen.log = [line[:200] for line in log.splitlines() if TELLING.match(line)][:20]
            for records, seconds in RESTORED.findall(log)[-1:]:
                seen.said.append(int(records) / max(float(seconds), 0.01))
            stop()
            bench.say(f"{one.name}: ready after {seen.kept[-1]:.1f} s with its disk, {seen.empty[-1]:.1f} s without")
    return seen


def serves(_: LocalProcess, place: Place) -> bool:
    """Whether our worker may answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{place.port}/readyz", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def runs(process: LocalProcess, _: Place) -> bool:
    """Whether Kafka Streams has restored its store and reads again."""
    return "state RUNNING" in process.tail(200)


def wait_until_empty(kafka: str, group: str) -> None:
    """Wait until the group has no members: one that has not left yet would hold up the restart."""
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    for _ in range(600):
        state = admin.describe_consumer_groups([group])[group].result().state
        if state in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD):
            return
        time.sleep(0.1)
