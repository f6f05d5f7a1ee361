"""Availability and freshness while workers join, leave, fail and are restarted one by one."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from typing import NamedTuple

import aiohttp

from bench.data import user_id
from bench.measure import Bench
from bench.queries import quantile
from bench.report import describe_run, store_raw_numbers, table
from bench.sides import FOLDER, ROOT
from bench.source import INSERT, BenchShop, has_status_200
from domain.partitioning import partition_of
from local.artifacts import resolve
from local.database import start_database
from local.database_server import DatabaseServer
from local.process import LocalProcess, find_free_port, wait_ready

HEADING = "Workers that come and go"
ORDERS_PER_S, READS_PER_S = 2_000, 200
BATCH = 20
USERS, PRODUCTS, PARTITIONS = 5_000, 200, 4
SECONDS_TO_START = 90
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


class Fleet:
    """The workers of a shop, and the ports that a load balancer would use."""

    def __init__(self, shop: BenchShop) -> None:
        self._shop = shop
        self.workers: dict[str, LocalProcess] = {}
        self.ports: dict[str, int] = {}

    def start(self, name: str) -> None:
        """Start a worker, and add its port when it is ready."""
        port = self.ports.get(name) or find_free_port()
        folder = FOLDER / "run" / self._shop.name / name
        env = {
            **self._shop.env, "LATELY_WEB_PORT": str(port), "LATELY_DATA_DIR": str(folder / "state"),
            "LATELY_STANDBY_REPLICAS": "1", "LATELY_PARTITIONS": str(PARTITIONS),
        }  # fmt: skip
        command = [sys.executable, "-m", "app", "worker", "-l", "info"]
        worker = self.workers[name] = LocalProcess(name, command, folder, env=env, cwd=ROOT)
        worker.start()
        wait_ready(worker, lambda: has_status_200(port, "/readyz"), SECONDS_TO_START, "200 of /readyz")
        self.ports[name] = port

    def kill(self, name: str) -> None:
        """Kill a worker with SIGKILL, and remove its port."""
        self.workers.pop(name).kill()
        del self.ports[name]

    def restart(self, name: str) -> None:
        """Stop a worker with SIGTERM, and start it again."""
        self.workers.pop(name).stop(40)
        self.start(name)

    def stop(self) -> None:
        """Kill all workers."""
        for worker in self.workers.values():
            worker.kill()


class Reader:
    """Sends requests at fixed times in a thread, and stores a sample of each response."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._stopping = False
        self.samples: list[ReadSample] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._read()))

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()

    async def _read(self) -> None:
        dice = random.Random(7)  # noqa: S311 - a benchmark needs repeatable numbers
        tasks: set[asyncio.Task] = set()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            began, number = time.monotonic(), 0
            while not self._stopping:
                ports = list(self._fleet.ports.values())
                dice.shuffle(ports)
                task = asyncio.create_task(self._ask(session, user_id(dice.randrange(USERS)), ports))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
                await asyncio.sleep(max(0.0, began + number / READS_PER_S - time.monotonic()))
            await asyncio.gather(*tasks)

    async def _ask(self, session: aiohttp.ClientSession, name: str, ports: list[int]) -> None:
        began, status, body = time.monotonic(), 0, {}
        for port in ports:
            try:
                async with session.get(f"http://127.0.0.1:{port}/v1/users/{name}/purchases") as answer:
                    status, body = answer.status, await answer.json(content_type=None)
                    break
            except (aiohttp.ClientConnectionError, asyncio.TimeoutError):
                continue
        meta = body.get("meta", {})
        took_ms = (time.monotonic() - began) * 1000
        self.samples.append(
            ReadSample(
                began, partition_of(name.encode(), PARTITIONS), took_ms, status,
                meta.get("role"), meta.get("lag_ms"), None if status == 200 else body.get("code", "no answer"),
            )
        )  # fmt: skip


class Writer:
    """Commits orders at a steady rate in a thread."""

    def __init__(self, shop: BenchShop) -> None:
        self._shop = shop
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.committed = 0
        self.spent_s = 0.0

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _write(self) -> None:
        dice, began = random.Random(11), time.monotonic()  # noqa: S311
        first = datetime(2026, 11, 1)
        with closing(self._shop.connect()) as connection, closing(connection.cursor()) as cursor:
            while not self._stopping.wait(max(0.0, began + self.committed / ORDERS_PER_S - time.monotonic())):
                cursor.executemany(
                    INSERT,
                    [
                        (f"e-{number}", f"Product {dice.randrange(PRODUCTS)}", user_id(dice.randrange(USERS)), "19.90",
                         (first + timedelta(seconds=number)).isoformat(sep=" "), "card", "phones")
                        for number in range(self.committed, self.committed + BATCH)
                    ],
                )  # fmt: skip
                connection.commit()
                self.committed += BATCH
        self.spent_s = time.monotonic() - began


def elastic(bench: Bench, pause_s: float) -> str:
    """Run all steps with pauses of `pause_s`, and return the text of the section."""
    folder = FOLDER / "run" / "database"
    with start_database(resolve(ROOT / ".lately", bench.log), folder) as server:
        shop, steps, samples, wrote, differences, compared = run_steps(bench, server, pause_s)
    for used in (folder, *(FOLDER / "run" / shop.name).glob("*/state")):
        shutil.rmtree(used, ignore_errors=True)
    store_raw_numbers("elastic", {"steps": steps, "seen": samples})
    rows = [
        step_row(name, [sample for sample in samples if begins <= sample.time < ends]) for name, begins, ends in steps
    ]
    head = ["step", "answers", "failed", "longest failure s", "p50 ms", "p99 ms", "oldest answer s", "answered by"]
    return (
        f"{wrote}\n\n{table(head, rows)}\n\nCompared at the end: {compared}; {differences} differed.\n\n"
        f"{HOW.format(orders=f'{ORDERS_PER_S:,}', reads=READS_PER_S, batch=BATCH, users=f'{USERS:,}')}\n\n"
        f"{describe_run()}"
    )


def run_steps(bench: Bench, server: DatabaseServer, pause_s: float) -> tuple:
    """Run the steps; return the steps, the samples, and the differences from SQL at the end."""
    shop = BenchShop(server, bench.kafka)
    shop.env["LATELY_PARTITIONS"] = str(PARTITIONS)
    shop.run("source", "setup")
    fleet = Fleet(shop)
    steps: list[tuple[str, float, float]] = []

    @contextmanager
    def step(name: str) -> Iterator[None]:
        begins = time.monotonic()
        yield
        time.sleep(pause_s)
        steps.append((name, begins, time.monotonic()))
        bench.log(f"elastic: {name}")

    try:
        fleet.start("a")
        with shop.publishing():
            with Writer(shop) as writer, Reader(fleet) as reader:
                with step("one worker"):
                    pass
                with step("a second joins"):
                    fleet.start("b")
                with step("a third joins"):
                    fleet.start("c")
                with step("one is killed (kill -9)"):
                    fleet.kill("b")
                with step("the others are restarted, one by one"):
                    fleet.restart("a")
                    fleet.restart("c")
            wait_until_caught_up(shop, fleet)
            differences, compared = compare_with_sql(shop, fleet)
    finally:
        fleet.stop()
    wrote = f"{writer.committed:,} orders in {writer.spent_s:.0f} s ({writer.committed / writer.spent_s:,.0f}/s)."
    return shop, steps, reader.samples, wrote, differences, compared


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
        f"{max(longest_failure(samples, number) for number in range(PARTITIONS)):.2f}",
        f"{quantile(times, 0.5):.1f}",
        f"{quantile(times, 0.99):.1f}",
        f"{max(lags, default=0) / 1000:.1f}",
        ", ".join(f"{count:,} {role}" for role, count in roles.most_common()) if len(roles) > 1 else "-",
    ]


def longest_failure(samples: list[ReadSample], partition: int) -> float:
    """Return the longest time (s) from a failed response of a partition to its next success.

    Without a later success it ends with the last failed response.
    """
    longest, since = 0.0, None
    for sample in sorted(samples, key=lambda sample: sample.time):
        if sample.partition != partition:
            continue
        if sample.status == 200:
            longest = max(longest, sample.time - since) if since is not None else longest
            since = None
        elif since is None:
            since = sample.time
        else:
            longest = max(longest, sample.time - since)
    return longest
