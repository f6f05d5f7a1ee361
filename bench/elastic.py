"""What readers and writers notice when workers join, leave, die and are restarted one by one."""

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
from bench.queries import part
from bench.report import circumstances, keep_raw, table
from bench.sides import FOLDER, ROOT
from bench.source import INSERT, Shop, answers
from domain.partitioning import partition_of
from local.artifacts import resolve
from local.mariadb import MariaDB, start_mariadb
from local.process import LocalProcess, find_free_port, wait_ready

HEADING = "Workers that come and go"
ORDERS_PER_S, READS_PER_S = 2_000, 200
BATCH = 20
USERS, PRODUCTS, PARTITIONS = 5_000, 200, 4
SECONDS_TO_START = 90
SECONDS_TO_CATCH_UP = 60
HOW = """\
A shop commits {orders} orders a second, {batch} in a transaction, of {users} users; a client asks {reads} times a
second for a random user's purchases at a random worker and, like any load balancer, another where nothing listens any
more. Workers have all agents, a standby of each partition (`LATELY_STANDBY_REPLICAS=1`), the session timeout of 8 s,
and know MySQL. "Failed": answers that were no 200, by their code. "Longest failure": the longest time in which all
answers about the users of a partition failed. "Oldest answer": the largest `meta.lag_ms`, which grows while nobody
reads the new orders of a partition. "Answered by": the roles of the answers, where not all were `active`. At the end
all lists of all users and the totals of all products, asked of every worker, are compared with SQL."""


class Seen(NamedTuple):
    """One answer: when it was asked for (s), of which partition, how long it took, and what it said of itself."""

    at: float
    partition: int
    took_ms: float
    status: int
    role: str | None
    lag_ms: int | None
    code: str | None


class Fleet:
    """The workers of a shop, and the ports that a load balancer would know."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.running: dict[str, LocalProcess] = {}
        self.ports: dict[str, int] = {}

    def start(self, name: str) -> None:
        """Start a worker, and use it once it is ready."""
        port = self.ports.get(name) or find_free_port()
        folder = FOLDER / "run" / self._shop.name / name
        env = {
            **self._shop.env, "LATELY_WEB_PORT": str(port), "LATELY_DATA_DIR": str(folder / "state"),
            "LATELY_STANDBY_REPLICAS": "1", "LATELY_PARTITIONS": str(PARTITIONS),
        }  # fmt: skip
        command = [sys.executable, "-m", "app", "worker", "-l", "info"]
        worker = self.running[name] = LocalProcess(name, command, folder, env=env, cwd=ROOT)
        worker.start()
        wait_ready(worker, lambda: answers(port, "/readyz"), SECONDS_TO_START, "200 of /readyz")
        self.ports[name] = port

    def kill(self, name: str) -> None:
        """Kill -9; whoever asks learns of it by himself."""
        self.running.pop(name).kill()
        del self.ports[name]

    def restart(self, name: str) -> None:
        """SIGTERM, and start again."""
        self.running.pop(name).stop(40)
        self.start(name)

    def stop(self) -> None:
        """Kill all that run."""
        for worker in self.running.values():
            worker.kill()


class Reader:
    """Asks at fixed times, in a thread of its own, and remembers every answer."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._stopping = False
        self.seen: list[Seen] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._read()))

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()

    async def _read(self) -> None:
        dice = random.Random(7)  # noqa: S311 - a benchmark wants numbers that repeat
        asked: set[asyncio.Task] = set()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            began, number = time.monotonic(), 0
            while not self._stopping:
                ports = list(self._fleet.ports.values())
                dice.shuffle(ports)
                task = asyncio.create_task(self._ask(session, user_id(dice.randrange(USERS)), ports))
                asked.add(task)
                task.add_done_callback(asked.discard)
                number += 1
                await asyncio.sleep(max(0.0, began + number / READS_PER_S - time.monotonic()))
            await asyncio.gather(*asked)

    async def _ask(self, session: aiohttp.ClientSession, name: str, ports: list[int]) -> None:
        began, status, told = time.monotonic(), 0, {}
        for port in ports:
            try:
                async with session.get(f"http://127.0.0.1:{port}/v1/users/{name}/purchases") as answer:
                    status, told = answer.status, await answer.json(content_type=None)
                    break
            except (aiohttp.ClientConnectionError, asyncio.TimeoutError):
                continue
        about = told.get("meta", {})
        took_ms = (time.monotonic() - began) * 1000
        self.seen.append(
            Seen(
                began, partition_of(name.encode(), PARTITIONS), took_ms, status,
                about.get("role"), about.get("lag_ms"), None if status == 200 else told.get("code", "no answer"),
            )
        )  # fmt: skip


class Writer:
    """Commits orders at a steady rate, in a thread of its own."""

    def __init__(self, shop: Shop) -> None:
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
    """Do all of it once, with so many seconds after each step, and return the text of the section."""
    folder = FOLDER / "run" / "database"
    with start_mariadb(resolve(ROOT / ".lately", bench.say), folder) as server:
        shop, steps, seen, wrote, differences, compared = measured(bench, server, pause_s)
    for used in (folder, *(FOLDER / "run" / shop.name).glob("*/state")):
        shutil.rmtree(used, ignore_errors=True)
    keep_raw("elastic", {"steps": steps, "seen": seen})
    rows = [row(name, [one for one in seen if begins <= one.at < ends]) for name, begins, ends in steps]
    head = ["step", "answers", "failed", "longest failure s", "p50 ms", "p99 ms", "oldest answer s", "answered by"]
    return (
        f"{wrote}\n\n{table(head, rows)}\n\nCompared at the end: {compared}; {differences} differed.\n\n"
        f"{HOW.format(orders=f'{ORDERS_PER_S:,}', reads=READS_PER_S, batch=BATCH, users=f'{USERS:,}')}\n\n"
        f"{circumstances()}"
    )


def measured(bench: Bench, server: MariaDB, pause_s: float) -> tuple:
    """Run the steps; what they were, what was seen, and what differed from SQL at the end."""
    shop = Shop(server, bench.kafka)
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
        bench.say(f"elastic: {name}")

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
            caught_up(shop, fleet)
            differences, compared = compare(shop, fleet)
    finally:
        fleet.stop()
    wrote = f"{writer.committed:,} orders in {writer.spent_s:.0f} s ({writer.committed / writer.spent_s:,.0f}/s)."
    return shop, steps, reader.seen, wrote, differences, compared


def caught_up(shop: Shop, fleet: Fleet) -> None:
    """Wait until the outbox is empty, and every worker has all that came out of it."""
    until = time.monotonic() + SECONDS_TO_CATCH_UP
    while time.monotonic() < until:
        with closing(shop.connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("SELECT COUNT(*) FROM purchase_outbox")
            waiting = cursor.fetchone()[0]
        if not waiting and not compare(shop, fleet)[0]:
            return
        time.sleep(1)


def compare(shop: Shop, fleet: Fleet) -> tuple[int, str]:
    """How many lists and totals differ from SQL, and what was compared."""
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
        told = await get(session, port, f"/v1/users/{name}/purchases?consistency=active")
        return [one["order_id"] for one in told.get("purchases", ())] == lists[name]

    async def sums(session: aiohttp.ClientSession, port: int, name: str) -> bool:
        told = await get(session, port, f"/v1/products/{name.replace(' ', '%20')}")
        return (told.get("purchases"), told.get("revenue")) == totals[name]

    async with aiohttp.ClientSession() as session:
        for port in ports:
            right = await asyncio.gather(
                *(check(session, port, name) for name in lists), *(sums(session, port, name) for name in totals)
            )
            wrong += right.count(False)
    return wrong


def row(name: str, seen: list[Seen]) -> list[str]:
    """One line of the table."""
    good = [one for one in seen if one.status == 200]
    bad = Counter(one.code for one in seen if one.status != 200)
    roles = Counter(one.role for one in good)
    times = sorted(one.took_ms for one in good)
    lags = [one.lag_ms for one in good if one.lag_ms is not None]
    return [
        name,
        f"{len(seen):,}",
        ", ".join(f"{count} {code}" for code, count in bad.items()) or "0",
        f"{max(longest_failure(seen, number) for number in range(PARTITIONS)):.2f}",
        f"{part(times, 0.5):.1f}",
        f"{part(times, 0.99):.1f}",
        f"{max(lags, default=0) / 1000:.1f}",
        ", ".join(f"{count:,} {role}" for role, count in roles.most_common()) if len(roles) > 1 else "-",
    ]


def longest_failure(seen: list[Seen], partition: int) -> float:
    """The longest time (s) from a failed answer about a partition to the next good one, or to the last that failed."""
    longest, since = 0.0, None
    for one in sorted(seen, key=lambda one: one.at):
        if one.partition != partition:
            continue
        if one.status == 200:
            longest = max(longest, one.at - since) if since is not None else longest
            since = None
        elif since is None:
            since = one.at
        else:
            longest = max(longest, one.at - since)
    return longest
