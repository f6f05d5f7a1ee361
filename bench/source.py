"""How fast the event source is: snapshots, live changes, and what the triggers cost the shop."""

from __future__ import annotations

import http.client
import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import mysql.connector
from confluent_kafka import Consumer, TopicPartition

from bench.measure import Bench
from bench.queries import part
from bench.report import circumstances, keep_raw, median, rounded, table
from bench.sides import FOLDER, ROOT
from local.artifacts import resolve
from local.mariadb import MariaDB, start_mariadb
from local.process import LocalProcess, find_free_port, wait_ready
from local.shop import TABLE

HEADING = "Event source"
LIVE_RATE = 500
#: Seconds of a worker, and of a broker just started, that are told apart from those after them.
FIRST_S = 5
#: Of so many orders one is asked for over HTTP.
ASK_EVERY = 25
WRITERS, ROWS_PERINSERT = 4, 100
USERS = 200_000
HOW = """\
Snapshot: `lately source snapshot --all`, the whole process, beside a plain `SELECT *` of the same table by the same
connector. Live: a shop commits {rate} orders a second one by one; from the moment COMMIT has returned to the moment a
consumer has the record; and, with a worker that has all its agents, of every {every}th order to the moment a client
has the answer of `GET /v1/users/<user>/purchases?after_order=<order>`; the first seconds, in which a broker just
started still compiles what transactions need, are told apart. Sustained: {writers} writers insert {rows} rows per
transaction as fast as they can; rows per second from the first record to the last. The shop's own cost: single-row
transactions over {writers} connections as fast as they can, without triggers (before and after), with them, and with
them while the source publishes; and the time that the database server computes for one."""

Row = tuple[str, str, str, str, str, str, str]
INSERT = "INSERT INTO orders VALUES (%s, %s, %s, %s, %s, %s, %s)"


class Cost(NamedTuple):
    """Transactions per second, and microseconds that the server computes for one."""

    rate: float
    cpu_us: float


class Shop:
    """A database of its own with the demo shop's table, and Lately's settings for it."""

    def __init__(self, server: MariaDB, kafka: str) -> None:
        self.server = server
        self.name = f"b{uuid.uuid4().hex[:8]}"
        self.env = {
            "LATELY_ID": self.name, "LATELY_TOPIC_PREFIX": f"{self.name}-", "LATELY_KAFKA": kafka,
            "LATELY_MYSQL_HOST": server.host, "LATELY_MYSQL_PORT": str(server.port),
            "LATELY_MYSQL_USER": server.user, "LATELY_MYSQL_PASSWORD": server.password,
            "LATELY_MYSQL_DATABASE": self.name,
        }  # fmt: skip
        with closing(self.connect(None)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(f"CREATE DATABASE {self.name} DEFAULT CHARACTER SET utf8mb4")
            cursor.execute(f"USE {self.name}")
            cursor.execute(TABLE)

    def connect(self, database: str | None = "") -> mysql.connector.MySQLConnection:
        """A connection of the shop, autocommit off."""
        return mysql.connector.connect(
            host=self.server.host, port=self.server.port, user=self.server.user, password=self.server.password,
            database=self.name if database == "" else database, charset="utf8mb4",
            collation="utf8mb4_general_ci", use_pure=True,
        )  # fmt: skip

    def fill(self, rows: int) -> None:
        """Orders of the past, made by the server."""
        with closing(self.connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(
                "INSERT INTO orders SELECT CONCAT('19f3c-', seq), CONCAT('Product ', seq % 500),"
                f" CONCAT('user-', seq * 7919 % {USERS}), 9.90 + seq % 1000, '2026-01-01' + INTERVAL seq SECOND,"
                f" 'card', 'phones' FROM seq_1_to_{rows}"
            )
            connection.commit()

    def lately(self, *words: str) -> LocalProcess:
        """`lately …`, not started yet."""
        command = [sys.executable, "-m", "app", *words]
        return LocalProcess(f"{words[0]}-{words[-1]}", command, FOLDER / "run" / self.name, env=self.env, cwd=ROOT)

    def run(self, *words: str) -> float:
        """Run `lately …` to its end; the seconds it took."""
        process, begun = self.lately(*words), time.monotonic()
        process.start()
        if process.child.wait(600) != 0:
            raise RuntimeError(f"lately {' '.join(words)} failed:\n{process.tail()}")
        return time.monotonic() - begun

    @contextmanager
    def publishing(self) -> Iterator[LocalProcess]:
        """`lately source` runs."""
        process = self.lately("source")
        process.start()
        try:
            wait_ready(process, lambda: "publishing" in process.tail(), 60, "line about what it publishes")
            yield process
        finally:
            process.stop()

    def arrivals(self, stopping: threading.Event, expected: int) -> dict[str, float]:
        """Order id -> when its record arrived, of all records of the topic from now on, until `expected` are there."""
        found: dict[str, float] = {}
        topic = f"{self.name}-orders"
        settings = {"bootstrap.servers": self.env["LATELY_KAFKA"], "group.id": self.name, "fetch.wait.max.ms": 5}
        with closing(Consumer(settings)) as reader:
            reader.assign([TopicPartition(topic, number, 0) for number in range(4)])
            while len(found) < expected and not stopping.is_set():
                record = reader.poll(0.05)
                if record is not None and not record.error():
                    now, value = time.time(), record.value()
                    at = value.index(b'"subject":"') + 11
                    found[value[at : value.index(b'"', at)].decode()] = now
        return found


def row(number: int) -> Row:
    """One order of now."""
    at = (datetime(2026, 11, 1) + timedelta(seconds=number)).isoformat(sep=" ")
    return (f"live-{number}", f"Product {number % 500}", f"user-{number * 7919 % USERS}", "19.90", at, "card", "phones")


def source(bench: Bench, rounds: int, quick: bool) -> str:
    """Measure all of it and return the text of the section."""
    rows, live_s, burst, inserts = (50_000, 5, 10_000, 500) if quick else (1_000_000, 20, 100_000, 3_000)
    folder = FOLDER / "run" / "database"
    raw: dict[str, object] = {}
    with start_mariadb(resolve(ROOT / ".lately", bench.say), folder) as server:
        snapshots = raw["snapshot"] = [snapshot(Shop(server, bench.kafka), rows) for _ in range(rounds)]
        bench.say(f"snapshot: {rounded(median(rate for _, rate in snapshots))} rows/s")
        lives = raw["live"] = [live(Shop(server, bench.kafka), live_s) for _ in range(rounds)]
        bench.say("live: done")
        seen = raw["visible"] = [visible(Shop(server, bench.kafka), live_s) for _ in range(rounds)]
        bench.say("visible: done")
        full = raw["sustained"] = [sustained(Shop(server, bench.kafka), burst) for _ in range(rounds)]
        bench.say(f"sustained: {rounded(median(full))} rows/s")
        costs = raw["cost"] = [cost(Shop(server, bench.kafka), inserts) for _ in range(rounds)]
    shutil.rmtree(folder, ignore_errors=True)
    keep_raw("source", raw)
    delays = sorted(delay for found, _ in lives for delay in found)
    first_s = min(FIRST_S, live_s // 2)
    first = first_s * LIVE_RATE // ASK_EVERY
    at_first = sorted(one for found in seen for one in found[:first])
    shown_after = sorted(one for found in seen for one in found[first:])
    plain, triggered, published = (
        Cost(median(one[number].rate for one in costs), median(one[number].cpu_us for one in costs))
        for number in range(3)
    )
    shown = table(
        ["what", "measured"],
        [
            [f"snapshot of {rows:,} rows, rows/s", rounded(median(rate for _, rate in snapshots))],
            ["the same rows by a plain SELECT, rows/s", rounded(median(rate for rate, _ in snapshots))],
            [f"live at {LIVE_RATE} orders/s: commit to Kafka, p50 ms", f"{part(delays, 0.5) * 1000:.1f}"],
            ["p99 ms", f"{part(delays, 0.99) * 1000:.1f}"],
            ["most rows in the outbox meanwhile", f"{max(most for _, most in lives):,}"],
            ["commit to the answer of a worker, p50 ms", f"{part(shown_after, 0.5) * 1000:.1f}"],
            ["p99 ms", f"{part(shown_after, 0.99) * 1000:.1f}"],
            [
                f"of the first {first_s} s of a worker, p50 and p99 ms",
                f"{part(at_first, 0.5) * 1000:.1f} and {part(at_first, 0.99) * 1000:.1f}",
            ],
            [f"sustained, {WRITERS} writers, rows/s", rounded(median(full))],
            ["the shop's transactions/s, without triggers", rounded(plain.rate)],
            ["with triggers", f"{rounded(triggered.rate)} ({triggered.rate / plain.rate - 1:+.0%})"],
            [
                "with triggers and a running source",
                f"{rounded(published.rate)} ({published.rate / plain.rate - 1:+.0%})",
            ],
            ["the server's CPU per transaction without triggers, µs", f"{plain.cpu_us:.0f}"],
            ["with triggers", f"{triggered.cpu_us:.0f} ({triggered.cpu_us / plain.cpu_us - 1:+.0%})"],
        ],
    )
    how = HOW.format(rate=LIVE_RATE, every=ASK_EVERY, writers=WRITERS, rows=ROWS_PERINSERT)
    return f"Medians of {rounds}; times of all rounds together.\n\n{shown}\n\n{how}\n\n{circumstances()}"


def snapshot(shop: Shop, rows: int) -> tuple[float, float]:
    """Rows per second of a plain SELECT, and of a snapshot."""
    shop.run("source", "setup")
    with closing(shop.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("DROP TRIGGER purchase_outbox_insert")
    shop.fill(rows)
    with closing(shop.connect()) as connection, closing(connection.cursor()) as cursor:
        begun = time.monotonic()
        cursor.execute("SELECT * FROM orders")
        while cursor.fetchmany(2_000):
            pass
        plain = time.monotonic() - begun
    return rows / plain, rows / shop.run("source", "snapshot", "--all")


def live(shop: Shop, seconds: int) -> tuple[list[float], int]:
    """The delay of every order in seconds, and the most rows that were in the outbox."""
    shop.run("source", "setup")
    count, most, stopping = LIVE_RATE * seconds, 0, threading.Event()
    with shop.publishing(), ThreadPoolExecutor() as pool, closing(shop.connect()) as connection:
        arriving = pool.submit(shop.arrivals, stopping, count)
        committed = {}
        with closing(connection.cursor()) as cursor:
            begun = time.monotonic()
            for number in range(count):
                pause = begun + number / LIVE_RATE - time.monotonic()
                if pause > 0:
                    time.sleep(pause)
                cursor.execute(INSERT, row(number))
                connection.commit()
                committed[f"live-{number}"] = time.time()
                if number % LIVE_RATE == 0:
                    cursor.execute("SELECT COUNT(*) FROM purchase_outbox")
                    most = max(most, cursor.fetchone()[0])
                    connection.rollback()
        arrived = _all_of(arriving, stopping)
    return [arrived[order] - committed[order] for order in committed], most


def visible(shop: Shop, seconds: int) -> list[float]:
    """Seconds from COMMIT to an answer of the worker that has the order, of some of the orders."""
    shop.run("source", "setup")
    port = find_free_port()
    shop.env |= {"LATELY_WEB_PORT": str(port), "LATELY_DATA_DIR": str(FOLDER / "run" / shop.name / "state")}
    worker = shop.lately("worker", "-l", "info")
    try:
        worker.start()
        wait_ready(worker, lambda: answers(port, "/readyz"), 60, "200 of /readyz")
        with shop.publishing(), ThreadPoolExecutor(32) as pool, closing(shop.connect()) as connection:
            with closing(connection.cursor()) as cursor:
                asked, begun = [], time.monotonic()
                for number in range(LIVE_RATE * seconds):
                    pause = begun + number / LIVE_RATE - time.monotonic()
                    if pause > 0:
                        time.sleep(pause)
                    cursor.execute(INSERT, row(number))
                    connection.commit()
                    if number % ASK_EVERY == 0:
                        asked.append(pool.submit(_seen, port, number, time.monotonic()))
                return [one.result() for one in asked]
    finally:
        worker.kill()


def _seen(port: int, number: int, committed: float) -> float:
    order, user = row(number)[0], row(number)[2]
    if not answers(port, f"/v1/users/{user}/purchases?after_order={order}&wait_ms=5000"):
        raise RuntimeError(f"the order {order} was not visible within 5 s")
    return time.monotonic() - committed


def answers(port: int, path: str) -> bool:
    """Whether the worker's answer is a 200."""
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status == 200
    except OSError:
        return False


def sustained(shop: Shop, rows: int) -> float:
    """Rows per second from the first record to the last while writers insert as fast as they can."""
    shop.run("source", "setup")
    stopping = threading.Event()
    with shop.publishing(), ThreadPoolExecutor() as pool:
        arriving = pool.submit(shop.arrivals, stopping, rows)
        each = rows // WRITERS
        for one in [pool.submit(insert_some, shop, number * each, each) for number in range(WRITERS)]:
            one.result()
        arrived = _all_of(arriving, stopping)
    times = sorted(arrived.values())
    return len(times) / (times[-1] - times[0])


def cost(shop: Shop, transactions: int) -> list[Cost]:
    """What a transaction of the shop costs without triggers, with them, and while the source publishes."""
    firsts = iter(range(0, 10 * transactions, transactions))

    def measured() -> Cost:
        return _insert_singly(shop, next(firsts), transactions)

    measured()  # a server just started is slow
    before = measured()
    shop.run("source", "setup")
    triggered = measured()
    with shop.publishing():
        published = measured()
    shop.run("source", "teardown", "--force")
    after = measured()
    return [Cost((before.rate + after.rate) / 2, (before.cpu_us + after.cpu_us) / 2), triggered, published]


def _insert_singly(shop: Shop, first: int, count: int) -> Cost:
    each = count // WRITERS
    begun, computed = time.monotonic(), _cpu_s(shop.server.process.pid)
    with ThreadPoolExecutor(WRITERS) as pool:
        for one in [pool.submit(insert_some, shop, first + number * each, each, 1) for number in range(WRITERS)]:
            one.result()
    spent = time.monotonic() - begun
    return Cost(count / spent, (_cpu_s(shop.server.process.pid) - computed) / count * 1e6)


def _cpu_s(pid: int) -> float:
    """Seconds that a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def insert_some(shop: Shop, first: int, count: int, at_once: int = ROWS_PERINSERT) -> None:
    """Let the shop commit these orders, so many in a transaction."""
    with closing(shop.connect()) as connection, closing(connection.cursor()) as cursor:
        for start in range(first, first + count, at_once):
            cursor.executemany(INSERT, [row(number) for number in range(start, start + at_once)])
            connection.commit()


def _all_of(arriving, stopping: threading.Event) -> dict[str, float]:
    """What arrived, once it is all; gives up after a minute."""
    try:
        return arriving.result(60)
    finally:
        stopping.set()
