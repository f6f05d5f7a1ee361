"""Measures the sales of all products in memory: their size, a read from Kafka, and a scan.

Run it as a process, whose memory then is that of one copy: `python -m bench.sales_copy fill
PRODUCTS`, or `python -m bench.sales_copy read TOPIC` with the settings of a worker. It prints JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Iterator
from itertools import islice

import uvloop
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from app.core import app
from bench.usage import read_status
from chunks import ChangelogFollower, position_key
from chunks.keys import BEGINNING_KEY
from domain.co_purchases import FORMAT, ProductSales, encode_extract
from domain.partitioning import partition_of
from tables.product_sales import SalesCopy
from tables.similar import current_hour
from web.bestsellers import BestsellerScan

PARTITIONS, CATEGORIES = 4, 50
#: One in so many products was bought in the last week, in so many different hours.
RECENT_EVERY, HOURS = 20, 12
#: Rows that are applied at once, like those of a range of the changelog.
ROWS_AT_ONCE = 500
SOURCE_TOPIC = "co-purchases"
HEARTBEAT_S = 0.001
SCANS = 3
READ_TIMEOUT_S = 300
FLUSH_TIMEOUT_S = 120

Row = tuple[bytes, bytes]


def generate_rows(products: int) -> Iterator[Row]:
    """Yield rows of the table product_sales; a name has 20 characters."""
    now = current_hour()
    for number in range(products):
        is_recent = number % RECENT_EVERY == 0
        hours = (
            {now - (number + 13 * step) % 168: 1 + (number + step) % 9 for step in range(HOURS)} if is_recent else {}
        )
        category = f"Category {number % CATEGORIES}"
        buyers = 1 + number * 7_919 % 10_007
        yield f"Product {number:012}".encode(), encode_extract(ProductSales(FORMAT, buyers, (0, category), hours))


def write_changelog(kafka: str, topic: str, products: int) -> None:
    """Create a changelog with one record for each product. Raises RuntimeError if Kafka rejects one."""
    admin = AdminClient({"bootstrap.servers": kafka})
    config = {"cleanup.policy": "compact"}
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, config=config)])[topic].result()
    failures: list[object] = []
    producer = Producer({
        "bootstrap.servers": kafka, "linger.ms": 20, "batch.size": 262_144, "enable.idempotence": True,
        "queue.buffering.max.messages": 1_000_000, "log_level": 3,
    })  # fmt: skip

    def send(partition: int, key: bytes, value: bytes) -> None:
        while True:
            try:
                producer.produce(topic, value, key, partition, on_delivery=on_delivery)
                return
            except BufferError:
                producer.poll(0.1)

    def on_delivery(error: object, _message: object) -> None:
        if error is not None:
            failures.append(error)

    for partition in range(PARTITIONS):
        send(partition, BEGINNING_KEY, b"bench")
    for number, (key, value) in enumerate(generate_rows(products)):
        send(partition_of(key, PARTITIONS), key, value)
        if number % 1000 == 0:
            producer.poll(0)
    for partition in range(PARTITIONS):
        send(partition, position_key(SOURCE_TOPIC), b"1")
    if producer.flush(FLUSH_TIMEOUT_S) or failures:
        raise RuntimeError(f"Kafka did not accept the changelog {topic}: {failures[:1]}")


def fill(sales: SalesCopy, products: int) -> None:
    """Apply the rows of all products."""
    rows = generate_rows(products)
    for _ in range(0, products, ROWS_AT_ONCE):
        by_partition: dict[int, list[Row]] = {}
        for row in islice(rows, ROWS_AT_ONCE):
            by_partition.setdefault(partition_of(row[0], PARTITIONS), []).append(row)
        for partition, part in by_partition.items():
            sales.apply(partition, part)


def resident_mib() -> float:
    """Return the memory of this process."""
    gc.collect()
    return read_status(os.getpid(), "VmRSS") / 1024


async def longest_pause(work: Awaitable[object]) -> tuple[float, float]:
    """Return the seconds of some work, and the longest pause of the event loop meanwhile."""
    task, longest = asyncio.ensure_future(work), 0.0
    began = last = time.perf_counter()
    while not task.done():
        await asyncio.sleep(HEARTBEAT_S)
        now = time.perf_counter()
        longest, last = max(longest, now - last - HEARTBEAT_S), now
    await task
    return time.perf_counter() - began, longest


async def measure_scans(sales: SalesCopy) -> list[tuple[float, float, float]]:
    """Return seconds, processor seconds and the longest pause of each scan."""
    scans = []
    for _ in range(SCANS):
        computed = time.process_time()
        seconds, pause_s = await longest_pause(BestsellerScan(sales).read())
        scans.append((seconds, time.process_time() - computed, pause_s))
    return scans


async def measure_fill(products: int) -> dict:
    """Fill a copy without Kafka, and scan it."""
    sales, before = SalesCopy(PARTITIONS), resident_mib()
    fill(sales, products)
    copy_mib = resident_mib() - before
    return {"products": products, "copy MiB": copy_mib, "scans": await measure_scans(sales)}


async def measure_read(topic: str) -> dict:
    """Read a changelog into a copy, as a worker does."""
    sales, before, computed = SalesCopy(PARTITIONS), resident_mib(), time.process_time()
    follower = ChangelogFollower(app, topic, SOURCE_TOPIC, PARTITIONS, sales)

    async def read() -> None:
        await follower.start()
        until = time.monotonic() + READ_TIMEOUT_S
        while not follower.is_complete:
            if time.monotonic() > until:
                raise RuntimeError(f"{topic} was not read within {READ_TIMEOUT_S} s")
            await asyncio.sleep(0.01)

    seconds, pause_s = await longest_pause(read())
    computed = time.process_time() - computed
    peak_mib = read_status(os.getpid(), "VmHWM") / 1024 - before
    await follower.stop()
    return {
        "products": sum(len(part) for part in sales.parts()), "seconds": seconds, "cpu s": computed, "pause s": pause_s,
        "copy MiB": resident_mib() - before, "peak MiB": peak_mib,
    }  # fmt: skip


def main() -> None:
    """Measure, and print the result as JSON."""
    what, argument = sys.argv[1:]
    # As a worker: app.worker, app.main.
    uvloop.install()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    result = asyncio.run(measure_fill(int(argument)) if what == "fill" else measure_read(argument))
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main()
