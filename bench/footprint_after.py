"""The footprint of orders after a worker with all agents has read them.

It consists of the sizes of topics and tables, the memory, and the duration of the next start.
"""

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
from bench.recovery import RECOVERY_TIMEOUT_S, RESTORED_LINE, STOP_TIMEOUT_S, is_worker_ready, wait_until_empty
from bench.report import rounded, table
from bench.sides import RunContext, lately
from bench.usage import Usage, cpu_s, read_status
from local.process import LocalProcess, wait_ready

MIB = 2**20
CHANGELOG = re.compile(r"-changelog$")


@dataclass
class Footprint:
    """The footprint of one data set."""

    data: DataSet
    rate: float
    worker_us: float
    broker_us: float
    peak_mib: float
    resident_mib: float
    #: Bytes by topic as written, and of the changelogs after compaction; bytes by table on the
    #: worker's disk.
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
        """The bytes of all tables."""
        return sum(self.tables.values())


def worker_with_all_agents(context: RunContext) -> LocalProcess:
    """Return a worker with the default agents."""
    return lately(context, by_product=True, similar=True)


def measure_footprint(bench: Bench, data: DataSet) -> Footprint:
    """Read the data set, measure, start again with the disk and without, and compact."""
    bench.prepare(data)
    context = bench.create_context(data)
    worker = worker_with_all_agents(context)
    with bench.running(context, worker):
        broker_s = cpu_s(bench.broker.pid)
        result = bench.ingest(worker, context)
        orders = data.orders
        footprint = Footprint(
            data, result.rate, result.cpu_s / orders * 1e6, (cpu_s(bench.broker.pid) - broker_s) / orders * 1e6,
            result.peak_mib, read_status(worker.pid, "VmRSS") / 1024, own_topics(topic_bytes(), context),
            Counter(), Counter(), {},
        )  # fmt: skip
        stop_worker(bench, worker, context)
        footprint.tables = table_bytes(context.folder)
        observer = Observer(bench.kafka, data, context.group)
        footprint.records = {short_name(name, context): count for name, count in observer.changelog_records().items()}
        observer.close()
        footprint.with_disk_s = measure_start(worker, context)
        # The processor time of a start does not belong to an order.
        footprint.start_cpu_s = cpu_s(worker.pid)
        footprint.worker_us -= footprint.start_cpu_s / orders * 1e6
        stop_worker(bench, worker, context)
        shutil.rmtree(context.folder / "state")
        footprint.without_s = measure_start(worker, context)
        restored = RESTORED_LINE.findall(worker.tail(1000))[-1]
        footprint.restored, footprint.restore_s = int(restored[0]), float(restored[1])
        stop_worker(bench, worker, context)
        compact(bench.kafka, [f"{context.group}-{name}" for name in footprint.records])
        footprint.compacted = own_topics(topic_bytes(), context)
    bench.log(f"capacity: {data}: {rounded(footprint.rate)} orders/s, {footprint.disk / MIB:,.0f} MiB of tables")
    return footprint


def measure_two_workers(bench: Bench, data: DataSet, start_cpu_s: float) -> tuple[float, float]:
    """Return orders/s of two workers together, and their microseconds of processor per order."""
    bench.prepare(data)
    context = bench.create_context(data)
    second_context = RunContext(context.kafka, data, context.group, name="second")
    first, second = worker_with_all_agents(context), worker_with_all_agents(second_context)
    with bench.running(context, first):
        try:
            second.start()
            second_usage = Usage(second.pid)
            result = bench.ingest(first, context)
            second_usage.sample()
        finally:
            second.kill()
            shutil.rmtree(second_context.folder / "state", ignore_errors=True)
    return result.rate, (result.cpu_s + second_usage.cpu_s - 2 * start_cpu_s) / data.orders * 1e6


def measure_start(worker: LocalProcess, context: RunContext) -> float:
    """Return the seconds from the start of the process to the first 200 of /readyz."""
    began = time.monotonic()
    worker.start()
    wait_ready(worker, lambda: is_worker_ready(worker, context), RECOVERY_TIMEOUT_S, "readiness")
    return time.monotonic() - began


def stop_worker(bench: Bench, worker: LocalProcess, context: RunContext) -> None:
    """Stop the worker with SIGTERM, which also flushes the tables."""
    worker.stop(STOP_TIMEOUT_S)
    wait_until_empty(bench.kafka, context.group)


def own_topics(counts: Counter[str], context: RunContext) -> Counter[str]:
    """Select the topics of one run, and shorten their names."""
    ours = (context.data.prefix, f"{context.group}-")
    return Counter({short_name(name, context): count for name, count in counts.items() if name.startswith(ours)})


def short_name(topic: str, context: RunContext) -> str:
    """Return the name of a topic without its prefix."""
    return topic.removeprefix(context.data.prefix).removeprefix(f"{context.group}-")


def bytes_table(footprints: list[Footprint]) -> str:
    """Return a table of the bytes per order of every topic and table."""
    heads = [f"{footprint.data.orders // footprint.data.users} per user" for footprint in footprints]
    rows = []
    for topic in sorted(
        {name for footprint in footprints for name in footprint.written} - {"source-state", "orders-dead"}
    ):
        rows.append(
            [
                f"topic `{topic}`",
                *(f"{footprint.written[topic] / footprint.data.orders:,.0f}" for footprint in footprints),
            ]
        )
        if CHANGELOG.search(topic):
            rows.append(
                [
                    "… compacted",
                    *(f"{footprint.compacted[topic] / footprint.data.orders:,.0f}" for footprint in footprints),
                ]
            )
    for name in sorted({name for footprint in footprints for name in footprint.tables}):
        rows.append(
            [
                f"table `{name}` on disk",
                *(f"{footprint.tables[name] / footprint.data.orders:,.0f}" for footprint in footprints),
            ]
        )
    rows.append(["all tables on disk", *(f"{footprint.disk / footprint.data.orders:,.0f}" for footprint in footprints)])
    rows.append(
        ["all tables, bytes per user", *(f"{footprint.disk / footprint.data.users:,.0f}" for footprint in footprints)]
    )
    return table(["bytes per order", *heads], rows)


def work_table(footprints: list[Footprint]) -> str:
    """Return a table of speed, processor time, memory and starts."""
    heads = [str(footprint.data) for footprint in footprints]
    rows = [
        ["orders/s, until all agents are through", *(rounded(footprint.rate) for footprint in footprints)],
        [
            "seconds of processor of a start with its disk",
            *(f"{footprint.start_cpu_s:.1f}" for footprint in footprints),
        ],
        ["worker, µs of processor per order without it", *(f"{footprint.worker_us:.0f}" for footprint in footprints)],
        ["broker, µs per order", *(f"{footprint.broker_us:.0f}" for footprint in footprints)],
        ["memory at the end, MiB", *(f"{footprint.resident_mib:,.0f}" for footprint in footprints)],
        ["its peak, MiB", *(f"{footprint.peak_mib:,.0f}" for footprint in footprints)],
        ["changelog records", *(f"{sum(footprint.records.values()):,}" for footprint in footprints)],
        ["ready after a start with its disk, s", *(f"{footprint.with_disk_s:.1f}" for footprint in footprints)],
        ["with an empty disk, s", *(f"{footprint.without_s:.1f}" for footprint in footprints)],
        [
            "records/s restored",
            *(rounded(footprint.restored / max(footprint.restore_s, 0.01)) for footprint in footprints),
        ],
    ]
    return table(["what", *heads], rows)
