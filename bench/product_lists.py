"""Lists of products: the memory of the sales, a read from Kafka, a scan, and recommendations."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from bench.data import DataSet, Feed, encode_order, user_id
from bench.footprint_after import worker_with_all_agents
from bench.measure import Bench
from bench.partition_cost import wait_until_read
from bench.queries import finish_query_client, quantile, start_query_client
from bench.recovery import is_worker_ready
from bench.report import describe_run, median, store_raw_numbers, table
from bench.sales_copy import CATEGORIES, HOURS, PARTITIONS, RECENT_EVERY, write_changelog
from bench.sides import ROOT, RunContext
from local.process import LocalProcess, wait_ready

HEADING = "Lists of products"
#: Groups of users who bought the same products last, and further ones that nobody else bought.
GROUPS, USERS_PER_GROUP, SEEDS, OTHERS = 10, 20, 10, 54
#: Requests for recommendations, and for purchases, in a second.
RECOMMENDATIONS_PER_S, QUERIES_PER_S = 10, 50
START_TIMEOUT_S, COMPLETE_TIMEOUT_S = 90, 60
HOW = f"""\
Memory: the resident memory of a process before and after it has stored the rows of the table
`product_sales`: names of 20 characters, {CATEGORIES} categories, and for one in {RECENT_EVERY}
products {HOURS} hours with counts. Scan: all products are read for the bestsellers of three windows
and of all categories; median of three. The longest pause is the longest time in which the event
loop did nothing else. Changelog: a process reads the changelog of the table, {PARTITIONS} partitions
with one record of each product, from the broker into memory, as every worker does at its start.
Recommendations: {GROUPS * USERS_PER_GROUP} users have bought {SEEDS + OTHERS} products each; the
newest {SEEDS} of a user have {SEEDS - 1 + USERS_PER_GROUP * OTHERS:,} neighbours each, of which
1,000 are scored. A client sends {RECOMMENDATIONS_PER_S} requests a second for the recommendations of
random users, one after the other and each to another worker, while another one sends {QUERIES_PER_S}
requests a second for purchases to one worker. The milliseconds are those until the last byte."""


@dataclass(frozen=True)
class NeighbourData(DataSet):
    """The orders of users whose newest products have many neighbours."""

    @property
    def prefix(self) -> str:
        """The value of LATELY_TOPIC_PREFIX for this data."""
        return "neighbours-"


def neighbour_orders() -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of all orders (key, value), those of the seeds last."""
    first_at, number = datetime.now(timezone.utc) - timedelta(days=1), 0
    products = [*((False, number) for number in range(OTHERS)), *((True, number) for number in range(SEEDS))]
    for is_seed, product in products:
        for user in range(GROUPS * USERS_PER_GROUP):
            owner = f"group {user // USERS_PER_GROUP}" if is_seed else f"user {user}"
            at = first_at + timedelta(seconds=number)
            yield encode_order(number, user_id(user), f"Product {product} of {owner}", "19.90", "card", at)
            number += 1


def run_copy(bench: Bench, *arguments: str) -> dict:
    """Run bench/sales_copy.py, and return its result."""
    command = [sys.executable, "-m", "bench.sales_copy", *arguments]
    env = {"LATELY_KAFKA": bench.kafka, "LATELY_PARTITIONS": str(PARTITIONS), "LATELY_ID": "sales-copy"}
    output = subprocess.run(command, cwd=ROOT, env=os.environ | env, stdout=subprocess.PIPE, check=True).stdout
    bench.log(f"products: {arguments[0]} {arguments[1]}: {output.decode().strip()}")
    return json.loads(output)


def product_lists(bench: Bench, rounds: int, quick: bool) -> str:
    """Measure everything, and return the text of the section."""
    sizes, seconds = ((10_000, 100_000), 10) if quick else ((10_000, 100_000, 1_000_000), 30)
    copies = [run_copy(bench, "fill", str(products)) for products in sizes]
    topic = "sales-copy-product_sales-changelog"
    write_changelog(bench.kafka, topic, sizes[-1])
    reads = [run_copy(bench, "read", topic) for _ in range(rounds)]
    bench.topics.discard(topic)
    lists = measure_recommendations(bench, seconds)
    store_raw_numbers("products", {"copies": copies, "reads": reads, "lists": lists})
    return "\n\n".join([
        copies_table(copies), reads_table(reads), lists_table(lists), HOW, describe_run(),
    ])  # fmt: skip


def measure_recommendations(bench: Bench, seconds: float) -> dict[str, dict]:
    """Return the responses with one worker and with three."""
    orders = GROUPS * USERS_PER_GROUP * (SEEDS + OTHERS)
    data = NeighbourData(orders, GROUPS * USERS_PER_GROUP, PARTITIONS)
    feed = Feed(bench.kafka, data, neighbour_orders())
    feed.write(orders)
    feed.flush()
    bench.topics.add(data.topic)
    context = bench.create_context(data)
    contexts = [context, *(RunContext(context.kafka, data, context.group, name=name) for name in ("second", "third"))]
    results = {}
    with ExitStack() as stack:
        stack.callback(bench.clear, context)
        for number, own_context in enumerate(contexts, 1):
            worker = worker_with_all_agents(own_context)
            stack.callback(remove, worker, own_context)
            worker.start()
            wait_ready(worker, lambda at=own_context, by=worker: is_worker_ready(by, at), START_TIMEOUT_S, "answer")
            if number == 1:
                wait_until_read(bench, context)
            if number != 2:
                name = "one worker" if number == 1 else f"{number} workers"
                results[name] = measure_workers(contexts[:number], seconds)
                bench.log(f"products: recommendations of {name}: {median(results[name]['recommendations']):.1f} ms")
    return results


def remove(worker: LocalProcess, context: RunContext) -> None:
    """Kill a worker, and remove its tables."""
    worker.kill()
    shutil.rmtree(context.folder / "state", ignore_errors=True)


def measure_workers(contexts: list[RunContext], seconds: float) -> dict:
    """Return the milliseconds of recommendations, and of queries with and without them."""
    wait_until_complete(contexts)
    alone = finish_query_client(start_query_client(contexts[0], QUERIES_PER_S, seconds))
    client = start_query_client(contexts[0], QUERIES_PER_S, 0)
    try:
        recommendations = request_recommendations(contexts, seconds)
        beside = finish_query_client(client)
    finally:
        client.kill()
        client.wait()
    return {"recommendations": recommendations, "queries": alone["answers"], "queries beside": beside["answers"]}


def wait_until_complete(contexts: list[RunContext]) -> None:
    """Wait until the list of every worker has all neighbours."""
    until = time.monotonic() + COMPLETE_TIMEOUT_S
    for context in contexts:
        with closing(http.client.HTTPConnection("127.0.0.1", context.port, timeout=10)) as connection:
            while not is_complete(*get_list(connection, 0)):
                if time.monotonic() > until:
                    raise RuntimeError(f"the lists were not complete within {COMPLETE_TIMEOUT_S} s")
                time.sleep(0.2)


def get_list(connection: http.client.HTTPConnection, user: int) -> tuple[int, dict]:
    """Return status and content of the recommendations for a user."""
    connection.request("GET", f"/v1/users/{user_id(user)}/recommendations")
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def is_complete(status: int, content: dict) -> bool:
    """Return True if a list has neighbours of all products of the user."""
    if status != 200 or not content["meta"]["complete"]:
        return False
    return [row["source"] for row in content["recommendations"]] == ["co-purchase"] * content["meta"]["limit"]


def request_recommendations(contexts: list[RunContext], seconds: float) -> list[float]:
    """Return the milliseconds of all requests. Raises RuntimeError if a list is not complete."""
    dice, times, began, number = random.Random(7), [], time.monotonic(), 0  # noqa: S311
    with ExitStack() as stack:
        connections = [
            stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", context.port, timeout=10)))
            for context in contexts
        ]
        while time.monotonic() < began + seconds:
            time.sleep(max(0.0, began + number / RECOMMENDATIONS_PER_S - time.monotonic()))
            connection, user = connections[number % len(connections)], dice.randrange(GROUPS * USERS_PER_GROUP)
            sent_at = time.perf_counter()
            status, content = get_list(connection, user)
            times.append((time.perf_counter() - sent_at) * 1000)
            if not is_complete(status, content):
                raise RuntimeError(f"the recommendations of user {user} are not complete: {status}, {content}")
            number += 1
    return times


def copies_table(copies: list[dict]) -> str:
    """Return the table of memory and scans."""
    rows = [
        [
            f"{copy['products']:,}",
            f"{copy['copy MiB']:,.1f}",
            f"{copy['copy MiB'] * 2**20 / copy['products']:,.0f}",
            f"{median(scan[0] for scan in copy['scans']):.3f}",
            f"{max(scan[2] for scan in copy['scans']) * 1000:.1f}",
        ]
        for copy in copies
    ]
    return table(["products", "MiB", "bytes each", "scan, s", "longest pause of a scan, ms"], rows)


def reads_table(reads: list[dict]) -> str:
    """Return the table of the reads of the changelog."""
    head = ["records", "seconds", "each round", "records/s", "CPU s", "longest pause, ms", "MiB", "peak MiB"]
    seconds = median(read["seconds"] for read in reads)
    row = [
        f"{reads[0]['products']:,}",
        f"{seconds:.1f}",
        ", ".join(f"{read['seconds']:.1f}" for read in reads),
        f"{reads[0]['products'] / seconds:,.0f}",
        f"{median(read['cpu s'] for read in reads):.1f}",
        f"{max(read['pause s'] for read in reads) * 1000:.1f}",
        f"{median(read['copy MiB'] for read in reads):,.0f}",
        f"{max(read['peak MiB'] for read in reads):,.0f}",
    ]
    return table(head, [row])


def lists_table(lists: dict[str, dict]) -> str:
    """Return the table of the response times."""
    rows = []
    for name, result in lists.items():
        for kind in ("recommendations", "queries beside", "queries"):
            answers = result[kind]
            times = sorted(answers if kind == "recommendations" else (ms for ms, _status in answers))
            title = {"queries beside": "purchases beside them", "queries": "purchases alone"}.get(kind, kind)
            quantiles = [f"{quantile(times, share):.1f}" for share in (0.5, 0.95, 0.99)]
            rows.append([f"{name}: {title}", f"{len(times):,}", *quantiles, f"{times[-1]:.1f}"])
    return table(["requests", "number", "p50 ms", "p95 ms", "p99 ms", "max ms"], rows)
