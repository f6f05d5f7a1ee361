"""What orders leave behind when a worker with all agents has read them: topics, tables, memory, and its next start."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass

from bench.data import DataSet
from bench.footprint import compact, table_bytes, topic_bytes
from bench.measure import Bench
from bench.observer import Observer
from bench.recovery import RESTORED, SECONDS_TO_RECOVER, SECONDS_TO_STOP, serves, wait_until_empty
from bench.report import rounded, table
from bench.sides import Place, lately
from bench.usage import Usage, cpu_s, status
from local.process import LocalProcess, wait_ready

MIB = 2**20
CHANGELOG = re.compile(r"-changelog$")


@dataclass
class Kept:
    """What was seen of one data set."""

    data: DataSet
    rate: float
    worker_us: float
    broker_us: float
    peak_mib: float
    resident_mib: float
    #: Bytes by topic as written, and of the changelogs after compaction; bytes by table on the worker's disk.
    written: Counter[str]
    compacted: Counter[str]
    tables: Counter[str]
    records: dict[str, int]
    with_disk_s: float = 0.0
    start_cpu_s: float = 0.0
    without_s: float = 0.0
    restored: int = 0
    restore_s: float = 0.0

    @property
    def disk(self) -> int:
        """Bytes of all tables."""
        return sum(self.tables.values())


def all_agents(place: Place) -> LocalProcess:
    """A worker as it is by default."""
    return lately(place, by_product=True, similar=True)


def kept(bench: Bench, data: DataSet) -> Kept:
    """Read all of it, look, start again with the disk and without, and compact."""
    bench.prepare(data)
    place = bench.place(data)
    worker = all_agents(place)
    with bench.running(place, worker):
        broker_s = cpu_s(bench.broker.pid)
        result = bench.ingest(worker, place)
        orders = data.orders
        seen = Kept(
            data, result.rate, result.cpu_s / orders * 1e6, (cpu_s(bench.broker.pid) - broker_s) / orders * 1e6,
            result.peak_mib, status(worker.pid, "VmRSS") / 1024, named(topic_bytes(), place), Counter(), Counter(), {},
        )  # fmt: skip
        stop(bench, worker, place)
        seen.tables = table_bytes(place.folder)
        observer = Observer(bench.kafka, data, place.group)
        seen.records = {short(name, place): count for name, count in observer.changelog_records().items()}
        observer.close()
        seen.with_disk_s = ready_after(worker, place)
        # What every start takes is no part of an order.
        seen.start_cpu_s = cpu_s(worker.pid)
        seen.worker_us -= seen.start_cpu_s / orders * 1e6
        stop(bench, worker, place)
        shutil.rmtree(place.folder / "state")
        seen.without_s = ready_after(worker, place)
        restored = RESTORED.findall(worker.tail(1000))[-1]
        seen.restored, seen.restore_s = int(restored[0]), float(restored[1])
        stop(bench, worker, place)
        compact(bench.kafka, [f"{place.group}-{name}" for name in seen.records])
        seen.compacted = named(topic_bytes(), place)
    bench.say(f"capacity: {data}: {rounded(seen.rate)} orders/s, {seen.disk / MIB:,.0f} MiB of tables")
    return seen


def two_workers(bench: Bench, data: DataSet, start_cpu_s: float) -> tuple[float, float]:
    """Orders/s of two workers that share the work, and the microseconds that both together compute for one."""
    bench.prepare(data)
    place = bench.place(data)
    its_place = Place(place.kafka, data, place.group, name="second")
    first, second = all_agents(place), all_agents(its_place)
    with bench.running(place, first):
        try:
            second.start()
            other = Usage(second.pid)
            result = bench.ingest(first, place)
            other.look()
        finally:
            second.kill()
            shutil.rmtree(its_place.folder / "state", ignore_errors=True)
    return result.rate, (result.cpu_s + other.cpu_s - 2 * start_cpu_s) / data.orders * 1e6


def ready_after(worker: LocalProcess, place: Place) -> float:
    """Seconds from the start of the process to the first 200 of /readyz."""
    began = time.monotonic()
    worker.start()
    wait_ready(worker, lambda: serves(worker, place), SECONDS_TO_RECOVER, "readiness")
    return time.monotonic() - began


def stop(bench: Bench, worker: LocalProcess, place: Place) -> None:
    """SIGTERM, which also flushes the tables."""
    worker.stop(SECONDS_TO_STOP)
    wait_until_empty(bench.kafka, place.group)


def named(counted: Counter[str], place: Place) -> Counter[str]:
    """The same for the topics of one run only, by their short names."""
    ours = (place.data.prefix, f"{place.group}-")
    return Counter({short(name, place): count for name, count in counted.items() if name.startswith(ours)})


def short(topic: str, place: Place) -> str:
    """A topic without what its name begins with."""
    return topic.removeprefix(place.data.prefix).removeprefix(f"{place.group}-")


def bytes_table(seen: list[Kept]) -> str:
    """Bytes per order of every topic and table."""
    heads = [f"{one.data.orders // one.data.users} per user" for one in seen]
    rows = []
    for topic in sorted({name for one in seen for name in one.written} - {"source-state", "orders-dead"}):
        rows.append([f"topic `{topic}`", *(f"{one.written[topic] / one.data.orders:,.0f}" for one in seen)])
        if CHANGELOG.search(topic):
            rows.append(["… compacted", *(f"{one.compacted[topic] / one.data.orders:,.0f}" for one in seen)])
    for name in sorted({name for one in seen for name in one.tables}):
        rows.append([f"table `{name}` on disk", *(f"{one.tables[name] / one.data.orders:,.0f}" for one in seen)])
    rows.append(["all tables on disk", *(f"{one.disk / one.data.orders:,.0f}" for one in seen)])
    rows.append(["all tables, bytes per user", *(f"{one.disk / one.data.users:,.0f}" for one in seen)])
    return table(["bytes per order", *heads], rows)


def work_table(seen: list[Kept]) -> str:
    """Speed, processor, memory and starts."""
    heads = [str(one.data) for one in seen]
    rows = [
        ["orders/s, until all agents are through", *(rounded(one.rate) for one in seen)],
        ["seconds of processor of a start with its disk", *(f"{one.start_cpu_s:.1f}" for one in seen)],
        ["worker, µs of processor per order without it", *(f"{one.worker_us:.0f}" for one in seen)],
        ["broker, µs per order", *(f"{one.broker_us:.0f}" for one in seen)],
        ["memory at the end, MiB", *(f"{one.resident_mib:,.0f}" for one in seen)],
        ["its peak, MiB", *(f"{one.peak_mib:,.0f}" for one in seen)],
        ["changelog records", *(f"{sum(one.records.values()):,}" for one in seen)],
        ["ready after a start with its disk, s", *(f"{one.with_disk_s:.1f}" for one in seen)],
        ["with an empty disk, s", *(f"{one.without_s:.1f}" for one in seen)],
        ["records/s restored", *(rounded(one.restored / max(one.restore_s, 0.01)) for one in seen)],
    ]
    return table(["what", *heads], rows)
