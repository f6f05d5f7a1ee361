"""The cost of the path of an order at a steady rate: topic bytes, network bytes, processor time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from confluent_kafka.admin import ResourceType

from bench.elastic import ORDERS
from bench.fleet import Fleet, Writer
from bench.footprint import alter_configs, read_traffic, topic_bytes
from bench.measure import Bench
from bench.report import rounded, table
from bench.source import WRITERS, BenchShop, insert_orders
from bench.usage import cpu_s
from local.mariadb import MariaDB

#: The seconds before the measurement, while the caches fill.
WARM_UP_S = 5
DRAIN_TIMEOUT_S = 120


@dataclass
class PathCost:
    """The totals of a measurement."""

    orders: int = 0
    seconds: float = 0.0
    topics: Counter[str] = field(default_factory=Counter)
    cpu: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    #: Rows/s of a source that empties a full outbox, and microseconds of source and database per
    #: row.
    drain_rate: float = 0.0
    drain_us: Counter[str] = field(default_factory=Counter)


@contextmanager
def broker_compression(kafka: str, codec: str) -> Iterator[None]:
    """Let the broker compress the topics with `codec`."""
    alter_configs(kafka, ResourceType.BROKER, ["1"], {"compression.type": codec})
    try:
        yield
    finally:
        alter_configs(kafka, ResourceType.BROKER, ["1"], None)


def measure_path_cost(bench: Bench, server: MariaDB, seconds: float, rows: int) -> PathCost:
    """Measure a steady rate of orders; then let a source publish a full outbox."""
    shop, path_cost = BenchShop(server, bench.kafka), PathCost()
    shop.run("source", "setup")
    fleet = Fleet(shop)
    port = int(bench.kafka.rpartition(":")[2])
    try:
        fleet.start("a")
        with shop.publishing() as source, Writer(shop, ORDERS) as writer:
            pids = {"source": source.pid, "worker": fleet.workers["a"].pid}
            pids |= {"broker": bench.broker.pid, "database": server.process.pid}

            def look() -> tuple:
                return (time.monotonic(), writer.committed, topic_bytes(), read_traffic(port),
                        {name: cpu_s(pid) for name, pid in pids.items()})  # fmt: skip

            time.sleep(WARM_UP_S)
            before = look()
            time.sleep(seconds)
            after = look()
    finally:
        fleet.stop()
    path_cost.seconds, path_cost.orders = after[0] - before[0], after[1] - before[1]
    for topic, count in after[2].items():
        if topic.startswith(f"{shop.name}-"):
            path_cost.topics[topic.removeprefix(f"{shop.name}-")] = count - before[2][topic]
    for name, pid in pids.items():
        path_cost.cpu[name] = after[4][name] - before[4][name]
        if pid in before[3] and pid in after[3]:
            path_cost.sent[name] = after[3][pid]["sent"] - before[3][pid]["sent"]
            path_cost.received[name] = after[3][pid]["received"] - before[3][pid]["received"]
    measure_drain(shop, path_cost, rows)
    bench.log(
        f"capacity: {path_cost.orders / path_cost.seconds:,.0f} orders/s processed, "
        f"{path_cost.drain_rate:,.0f} rows/s drained"
    )
    return path_cost


def measure_drain(shop: BenchShop, path_cost: PathCost, rows: int) -> None:
    """Fill the outbox, then start the source and wait until the outbox is empty."""
    with ThreadPoolExecutor() as pool:
        each = rows // WRITERS
        for future in [pool.submit(insert_orders, shop, number * each, each) for number in range(WRITERS)]:
            future.result()
    with closing(shop.connect()) as connection, closing(connection.cursor()) as cursor, shop.publishing() as source:
        pids = {"source": source.pid, "database": shop.server.process.pid}
        row_count, began, before = (
            count_outbox_rows(shop, cursor),
            time.monotonic(),
            {n: cpu_s(pid) for n, pid in pids.items()},
        )
        while count_outbox_rows(shop, cursor):
            if time.monotonic() - began > DRAIN_TIMEOUT_S:
                raise RuntimeError(f"{rows} rows were not published within {DRAIN_TIMEOUT_S} s")
            time.sleep(0.2)
        path_cost.drain_rate = row_count / (time.monotonic() - began)
        path_cost.drain_us = Counter(
            {name: (cpu_s(pid) - before[name]) / row_count * 1e6 for name, pid in pids.items()}
        )


def count_outbox_rows(shop, cursor) -> int:
    """Return the number of rows in the outbox."""
    cursor.execute("ROLLBACK")  # a SELECT needs a new snapshot
    cursor.execute(f"SELECT COUNT(*) FROM {shop.outbox}")  # noqa: S608 - no input
    (count,) = cursor.fetchone()
    return count


def path_cost_table(path_costs: dict[str, PathCost]) -> str:
    """Return the table of the costs per order, with a column for each codec."""
    rows = [["orders/s", *(rounded(cost.orders / cost.seconds) for cost in path_costs.values())]]
    topics = {name for cost in path_costs.values() for name in cost.topics} - {"source-state", "orders-dead"}
    for topic in sorted(topics):
        rows.append(
            [f"topic `{topic}`, bytes", *(f"{cost.topics[topic] / cost.orders:,.0f}" for cost in path_costs.values())]
        )
    total = (sum(cost.topics.values()) / cost.orders for cost in path_costs.values())
    rows.append(["all topics, bytes", *(f"{bytes_per_order:,.0f}" for bytes_per_order in total)])
    for name in ("source", "worker"):
        for direction in ("sent", "received"):
            rows.append([
                f"{name}, bytes {direction} {'to' if direction == 'sent' else 'from'} Kafka",
                *(
                    f"{getattr(cost, direction)[name] / cost.orders:,.0f}" if cost.sent else "-"
                    for cost in path_costs.values()
                ),
            ])  # fmt: skip
    for name in ("source", "worker", "broker", "database"):
        rows.append(
            [
                f"{name}, µs of processor",
                *(f"{cost.cpu[name] / cost.orders * 1e6:,.0f}" for cost in path_costs.values()),
            ]
        )
    rows.append(["a full outbox is published at, rows/s", *(rounded(cost.drain_rate) for cost in path_costs.values())])
    for name in ("source", "database"):
        rows.append([f"{name} meanwhile, µs per row", *(f"{cost.drain_us[name]:,.0f}" for cost in path_costs.values())])
    return table(["per order", *path_costs], rows)
