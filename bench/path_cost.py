"""What an order takes on its way while a shop sells at a steady rate: bytes in topics and on the network, processor."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from confluent_kafka.admin import ResourceType

from bench.elastic import Fleet, Writer
from bench.footprint import configure, topic_bytes, traffic
from bench.measure import Bench
from bench.report import rounded, table
from bench.source import WRITERS, Shop, insert_some
from bench.usage import cpu_s
from local.mariadb import MariaDB

#: Left out at the beginning, when caches are empty.
WARM_S = 5
SECONDS_TO_DRAIN = 120


@dataclass
class Flow:
    """What was counted while so many orders went through."""

    orders: int = 0
    seconds: float = 0.0
    topics: Counter[str] = field(default_factory=Counter)
    cpu: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    #: Rows/s of a source that empties a full outbox, and microseconds of source and database for one.
    drained: float = 0.0
    draining: Counter[str] = field(default_factory=Counter)


@contextmanager
def compressed(kafka: str, codec: str) -> Iterator[None]:
    """The broker compresses what is written to its topics."""
    configure(kafka, ResourceType.BROKER, ["1"], {"compression.type": codec})
    try:
        yield
    finally:
        configure(kafka, ResourceType.BROKER, ["1"], None)


def flow(bench: Bench, server: MariaDB, seconds: float, rows: int) -> Flow:
    """Sell through a source and a worker with all agents for so long; then let a source publish a full outbox."""
    shop, seen = Shop(server, bench.kafka), Flow()
    shop.run("source", "setup")
    fleet = Fleet(shop)
    port = int(bench.kafka.rpartition(":")[2])
    try:
        fleet.start("a")
        with shop.publishing() as source, Writer(shop) as writer:
            pids = {"source": source.pid, "worker": fleet.running["a"].pid}
            pids |= {"broker": bench.broker.pid, "database": server.process.pid}

            def look() -> tuple:
                return (time.monotonic(), writer.committed, topic_bytes(), traffic(port),
                        {name: cpu_s(pid) for name, pid in pids.items()})  # fmt: skip

            time.sleep(WARM_S)
            before = look()
            time.sleep(seconds)
            after = look()
    finally:
        fleet.stop()
    seen.seconds, seen.orders = after[0] - before[0], after[1] - before[1]
    for topic, count in after[2].items():
        if topic.startswith(f"{shop.name}-"):
            seen.topics[topic.removeprefix(f"{shop.name}-")] = count - before[2][topic]
    for name, pid in pids.items():
        seen.cpu[name] = after[4][name] - before[4][name]
        if pid in before[3] and pid in after[3]:
            seen.sent[name] = after[3][pid]["sent"] - before[3][pid]["sent"]
            seen.received[name] = after[3][pid]["received"] - before[3][pid]["received"]
    drain(shop, seen, rows)
    bench.say(f"capacity: {seen.orders / seen.seconds:,.0f} orders/s went through, {seen.drained:,.0f} rows/s drained")
    return seen


def drain(shop: Shop, seen: Flow, rows: int) -> None:
    """Fill the outbox, then start the source and wait until it is empty again."""
    with ThreadPoolExecutor() as pool:
        each = rows // WRITERS
        for one in [pool.submit(insert_some, shop, number * each, each) for number in range(WRITERS)]:
            one.result()
    with closing(shop.connect()) as connection, closing(connection.cursor()) as cursor, shop.publishing() as source:
        pids = {"source": source.pid, "database": shop.server.process.pid}
        left, began, before = waiting(connection, cursor), time.monotonic(), {n: cpu_s(pid) for n, pid in pids.items()}
        while waiting(connection, cursor):
            if time.monotonic() - began > SECONDS_TO_DRAIN:
                raise RuntimeError(f"{rows} rows were not published within {SECONDS_TO_DRAIN} s")
            time.sleep(0.2)
        seen.drained = left / (time.monotonic() - began)
        seen.draining = Counter({name: (cpu_s(pid) - before[name]) / left * 1e6 for name, pid in pids.items()})


def waiting(connection, cursor) -> int:
    """Rows in the outbox."""
    cursor.execute("SELECT COUNT(*) FROM purchase_outbox")
    (count,) = cursor.fetchone()
    connection.rollback()  # the next look sees what is there then
    return count


def flow_table(seen: dict[str, Flow]) -> str:
    """Everything per order, a column for each codec."""
    rows = [["orders/s", *(rounded(one.orders / one.seconds) for one in seen.values())]]
    topics = {name for one in seen.values() for name in one.topics} - {"source-state", "orders-dead"}
    for topic in sorted(topics):
        rows.append([f"topic `{topic}`, bytes", *(f"{one.topics[topic] / one.orders:,.0f}" for one in seen.values())])
    total = (sum(one.topics.values()) / one.orders for one in seen.values())
    rows.append(["all topics, bytes", *(f"{one:,.0f}" for one in total)])
    for name in ("source", "worker"):
        for way in ("sent", "received"):
            rows.append([
                f"{name}, bytes {way} {'to' if way == 'sent' else 'from'} Kafka",
                *(f"{getattr(one, way)[name] / one.orders:,.0f}" if one.sent else "-" for one in seen.values()),
            ])  # fmt: skip
    for name in ("source", "worker", "broker", "database"):
        rows.append(
            [f"{name}, µs of processor", *(f"{one.cpu[name] / one.orders * 1e6:,.0f}" for one in seen.values())]
        )
    rows.append(["a full outbox is published at, rows/s", *(rounded(one.drained) for one in seen.values())])
    for name in ("source", "database"):
        rows.append([f"{name} meanwhile, µs per row", *(f"{one.draining[name]:,.0f}" for one in seen.values())])
    return table(["per order", *seen], rows)
