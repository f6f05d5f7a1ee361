"""Availability and freshness while workers join, leave, fail and are restarted one by one."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections import Counter
from contextlib import closing
from datetime import datetime, timedelta
from typing import NamedTuple

import aiohttp

from bench.data import user_id
from bench.fleet import (
    BATCH,
    PARTITIONS,
    USERS,
    Fleet,
    OrderStream,
    Reader,
    Steps,
    Writer,
    get_from_any,
    longest_failure,
)
from bench.measure import Bench
from bench.queries import quantile
from bench.report import describe_run, store_raw_numbers, table
from bench.sides import FOLDER, ROOT
from bench.source import BenchShop
from domain.partitioning import partition_of
from local.artifacts import resolve
from local.database import start_database
from local.database_server import DatabaseServer

HEADING = "Workers that come and go"
ORDERS = OrderStream(2_000, 200, datetime(2026, 11, 1), timedelta(seconds=1))
READS_PER_S = 200
SECONDS_TO_CATCH_UP = 60
HOW = """\
A shop commits {orders} orders a second, {batch} in a transaction, of {users} users. A client sends
{reads} requests a second for the purchases of a random user to a random worker and, like any load
balancer, to another worker if the connection is refused. Workers run all agents, with a standby of
each partition (`LATELY_STANDBY_REPLICAS=1`), a session timeout of 8 s, and access to MySQL.
"Failed": responses other than 200, by problem code. "Longest failure": the longest time in which
all responses about the users of a partition failed. "Oldest answer": the greatest `meta.lag_ms`,
which grows while no worker reads the new orders of a partition. "Answered by": the roles of the
responses, if they are not all `active`. At the end all lists of all users and the totals of all
products, read from every worker, are compared with SQL."""


class ReadSample(NamedTuple):
    """One response: time of the request (s), partition, duration, and fields of the response."""

    time: float
    partition: int
    took_ms: float
    status: int
    role: str | None
    lag_ms: int | None
    code: str | None


async def read_purchases(session: aiohttp.ClientSession, dice: random.Random, ports: list[int]) -> ReadSample:
    """Request the purchases of a random user."""
    name = user_id(dice.randrange(USERS))
    began, took_ms, status, body = await get_from_any(session, ports, f"/v1/users/{name}/purchases")
    meta = body.get("meta", {})
    return ReadSample(
        began, partition_of(name.encode(), PARTITIONS), took_ms, status,
        meta.get("role"), meta.get("lag_ms"), None if status == 200 else body.get("code", "no answer"),
    )  # fmt: skip


def elastic(bench: Bench, pause_s: float) -> str:
    """Run all steps with pauses of `pause_s`, and return the text of the section."""
    folder = FOLDER / "run" / "database"
    with start_database(resolve(ROOT / ".lately", bench.log), folder) as server:
        shop, steps, samples, wrote, differences, compared = run_steps(bench, server, pause_s)
    for used in (folder, *(FOLDER / "run" / shop.name).glob("*/state")):
        shutil.rmtree(used, ignore_errors=True)
    store_raw_numbers("elastic", {"steps": steps.done, "seen": samples})
    rows = [step_row(name, during) for name, during in steps.samples(samples)]
    head = ["step", "answers", "failed", "longest failure s", "p50 ms", "p99 ms", "oldest answer s", "answered by"]
    return (
        f"{wrote}.\n\n{table(head, rows)}\n\nCompared at the end: {compared}; {differences} differed.\n\n"
        f"{HOW.format(orders=f'{ORDERS.orders_per_s:,}', reads=READS_PER_S, batch=BATCH, users=f'{USERS:,}')}\n\n"
        f"{describe_run()}"
    )


def run_steps(bench: Bench, server: DatabaseServer, pause_s: float) -> tuple:
    """Run the steps; return the steps, the samples, and the differences from SQL at the end."""
    shop = BenchShop(server, bench.kafka)
    shop.env["LATELY_PARTITIONS"] = str(PARTITIONS)
    shop.run("source", "setup")
    fleet = Fleet(shop)
    steps = Steps(pause_s, lambda name: bench.log(f"elastic: {name}"))
    try:
        fleet.start("a")
        with shop.publishing():
            with Writer(shop, ORDERS) as writer, Reader(fleet, READS_PER_S, read_purchases) as reader:
                with steps.step("one worker"):
                    pass
                with steps.step("a second joins"):
                    fleet.start("b")
                with steps.step("a third joins"):
                    fleet.start("c")
                with steps.step("one is killed (kill -9)"):
                    fleet.kill("b")
                with steps.step("the others are restarted, one by one"):
                    fleet.restart("a")
                    fleet.restart("c")
            wait_until_caught_up(shop, fleet)
            differences, compared = compare_with_sql(shop, fleet)
    finally:
        fleet.stop()
    return shop, steps, reader.samples, str(writer), differences, compared


def wait_until_caught_up(shop: BenchShop, fleet: Fleet) -> None:
    """Wait until the outbox is empty and every worker has applied all its rows."""
    until = time.monotonic() + SECONDS_TO_CATCH_UP
    while time.monotonic() < until:
        with closing(shop.connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(f"SELECT COUNT(*) FROM {shop.outbox}")  # noqa: S608 - no input
            waiting = cursor.fetchone()[0]
        if not waiting and not compare_with_sql(shop, fleet)[0]:
            return
        time.sleep(1)


def compare_with_sql(shop: BenchShop, fleet: Fleet) -> tuple[int, str]:
    """Return the number of lists and totals that differ from SQL, and what was compared."""
    with closing(shop.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(
            "SELECT user_id, order_id FROM (SELECT user_id, order_id, ROW_NUMBER() OVER (PARTITION BY user_id"
            " ORDER BY ordered_at DESC, order_id DESC, product_name DESC) AS place FROM orders) AS ranked"
            " WHERE place <= 20 ORDER BY user_id, place"
        )
        lists: dict[str, list[str]] = {}
        for name, order in cursor.fetchall():
            lists.setdefault(name, []).append(order)
        cursor.execute("SELECT product_name, COUNT(*), SUM(price) FROM orders GROUP BY product_name")
        totals = {name: (count, str(revenue)) for name, count, revenue in cursor.fetchall()}
    wrong = asyncio.run(_compare(list(fleet.ports.values()), lists, totals))
    return wrong, f"{len(lists):,} lists and {len(totals)} totals at each of {len(fleet.ports)} workers"


async def _compare(ports: list[int], lists: dict[str, list[str]], totals: dict[str, tuple[int, str]]) -> int:
    wrong, gate = 0, asyncio.Semaphore(16)

    async def get(session: aiohttp.ClientSession, port: int, path: str) -> dict:
        async with gate, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return await answer.json(content_type=None)

    async def check(session: aiohttp.ClientSession, port: int, name: str) -> bool:
        body = await get(session, port, f"/v1/users/{name}/purchases?consistency=active")
        return [purchase["order_id"] for purchase in body.get("purchases", ())] == lists[name]

    async def sums(session: aiohttp.ClientSession, port: int, name: str) -> bool:
        body = await get(session, port, f"/v1/products/{name.replace(' ', '%20')}")
        return (body.get("purchases"), body.get("revenue")) == totals[name]

    async with aiohttp.ClientSession() as session:
        for port in ports:
            right = await asyncio.gather(
                *(check(session, port, name) for name in lists), *(sums(session, port, name) for name in totals)
            )
            wrong += right.count(False)
    return wrong


def step_row(name: str, samples: list[ReadSample]) -> list[str]:
    """Return a row of the table."""
    successes = [sample for sample in samples if sample.status == 200]
    failures = Counter(sample.code for sample in samples if sample.status != 200)
    roles = Counter(sample.role for sample in successes)
    times = sorted(sample.took_ms for sample in successes)
    lags = [sample.lag_ms for sample in successes if sample.lag_ms is not None]
    return [
        name,
        f"{len(samples):,}",
        ", ".join(f"{count} {code}" for code, count in failures.items()) or "0",
        f"{longest_failure_of_partitions(samples):.2f}",
        f"{quantile(times, 0.5):.1f}",
        f"{quantile(times, 0.99):.1f}",
        f"{max(lags, default=0) / 1000:.1f}",
        ", ".join(f"{count:,} {role}" for role, count in roles.most_common()) if len(roles) > 1 else "-",
    ]


def longest_failure_of_partitions(samples: list[ReadSample]) -> float:
    """Return the longest time (s) in which all responses of a partition failed."""
    return max(
        longest_failure(sample for sample in samples if sample.partition == number) for number in range(PARTITIONS)
    )
