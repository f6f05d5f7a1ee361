"""Speed of the event source: snapshots, live changes, and the cost of the triggers for the shop."""

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
from bench.queries import quantile
from bench.report import describe_run, median, rounded, store_raw_numbers, table
from bench.sides import FOLDER, ROOT
from local.artifacts import MARIADB, MYSQL, resolve
from local.database import start_database
from local.database_server import DatabaseServer
from local.process import LocalProcess, find_free_port, wait_ready
from local.shop import TABLE

HEADINGS = {MARIADB: "Event source", MYSQL: "Event source on MySQL"}
#: The options with which the cost of the triggers is measured; MySQL writes a binary log by default.
BINARY_LOG = {"without a binary log": "--skip-log-bin", "with a binary log": "--log-bin=binlog"}
LIVE_RATE = 500
#: The first seconds of a worker and of a broker, which are listed separately.
FIRST_S = 5
#: One of this number of orders is queried over HTTP.
ASK_EVERY = 25
WRITERS, ROWS_PER_INSERT = 4, 100
USERS = 200_000
HOW = """\
Snapshot: `lately source snapshot --all`, the whole process, compared with a plain `SELECT *` of the
same table with the same connector. Live: a shop commits {rate} orders a second one by one. The
first delay ends when a consumer has the record. The second delay, of every {every}th order and with
a worker that runs all agents, ends when a client has the response of
`GET /v1/users/<user>/purchases?after_order=<order>`. The first seconds are listed separately,
because a new broker still compiles its code for transactions. Sustained: {writers} writers insert
{rows} rows per transaction as fast as they can; rows per second from the first record to the last.
Cost for the shop: transactions of one row over {writers} connections as fast as possible, without
triggers (before and after), with triggers, and with triggers and a running source; and the
processor time of the database server per transaction; on a server without a binary log and on one
with a binary log (MySQL's default; binlog_format=ROW)."""

Row = tuple[str, str, str, str, str, str, str]
INSERT = "INSERT INTO orders VALUES (%s, %s, %s, %s, %s, %s, %s)"


class TransactionCost(NamedTuple):
    """Transactions per second, and microseconds of processor time of the server for one."""

    rate: float
    cpu_us: float


class BenchShop:
    """A new database with the table of the demo shop, and the settings of Lately for it."""

    def __init__(self, server: DatabaseServer, kafka: str) -> None:
        self.server = server
        self.name = f"b{uuid.uuid4().hex[:8]}"
        self.outbox = f"{self.name}_lately.purchase_outbox"
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
        """Open a connection of the shop, without autocommit."""
        return mysql.connector.connect(
            host=self.server.host, port=self.server.port, user=self.server.user, password=self.server.password,
            database=self.name if database == "" else database, charset="utf8mb4",
            collation="utf8mb4_general_ci", use_pure=True,
        )  # fmt: skip

    def fill(self, rows: int) -> None:
        """Insert orders of the past in one statement."""
        with closing(self.connect()) as connection, closing(connection.cursor()) as cursor:
            # MySQL has no table of numbers: a join of digits replaces it.
            digits = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))
            tables = ", ".join(f"({digits}) AS t{place}" for place in range(7))
            number = "1 + " + " + ".join(f"t{place}.d * {10**place}" for place in range(7))
            cursor.execute(
                "INSERT INTO orders SELECT CONCAT('19f3c-', seq), CONCAT('Product ', seq % 500),"
                f" CONCAT('user-', seq * 7919 % {USERS}), 9.90 + seq % 1000,"
                " TIMESTAMP('2026-01-01') + INTERVAL seq SECOND, 'card', 'phones'"
                f" FROM (SELECT {number} AS seq FROM {tables}) AS numbers WHERE seq <= {rows}"
            )
            connection.commit()

    def lately_process(self, *words: str) -> LocalProcess:
        """Return the process of a command of Lately, not started yet."""
        command = [sys.executable, "-m", "app", *words]
        return LocalProcess(f"{words[0]}-{words[-1]}", command, FOLDER / "run" / self.name, env=self.env, cwd=ROOT)

    def run(self, *words: str) -> float:
        """Run a command of Lately until it ends, and return its seconds."""
        process, begun = self.lately_process(*words), time.monotonic()
        process.start()
        if process.child.wait(600) != 0:
            raise RuntimeError(f"lately {' '.join(words)} failed:\n{process.tail()}")
        return time.monotonic() - begun

    @contextmanager
    def publishing(self) -> Iterator[LocalProcess]:
        """Run `lately source`."""
        process = self.lately_process("source")
        process.start()
        try:
            wait_ready(process, lambda: "publishing" in process.tail(), 60, "log line about publishing")
            yield process
        finally:
            process.stop()

    def collect_arrivals(self, stopping: threading.Event, expected: int) -> dict[str, float]:
        """Return order id -> arrival time of its record, when `expected` orders have arrived."""
        arrivals: dict[str, float] = {}
        topic = f"{self.name}-orders"
        settings = {"bootstrap.servers": self.env["LATELY_KAFKA"], "group.id": self.name, "fetch.wait.max.ms": 5}
        with closing(Consumer(settings)) as reader:
            reader.assign([TopicPartition(topic, number, 0) for number in range(4)])
            while len(arrivals) < expected and not stopping.is_set():
                record = reader.poll(0.05)
                if record is not None and not record.error():
                    now, value = time.time(), record.value()
                    at = value.index(b'"subject":"') + 11
                    arrivals[value[at : value.index(b'"', at)].decode()] = now
        return arrivals


def order_row(number: int) -> Row:
    """Return the row of a new order."""
    at = (datetime(2026, 11, 1) + timedelta(seconds=number)).isoformat(sep=" ")
    return (f"live-{number}", f"Product {number % 500}", f"user-{number * 7919 % USERS}", "19.90", at, "card", "phones")


def source(bench: Bench, rounds: int, quick: bool, database: str) -> str:
    """Measure all rounds on a `mariadb` or `mysql`, and return the text of the section."""
    rows, live_s, burst, inserts = (50_000, 5, 10_000, 500) if quick else (1_000_000, 20, 100_000, 3_000)
    folder = FOLDER / "run" / "database"
    artifacts = resolve(ROOT / ".lately", bench.log, database)
    raw: dict[str, object] = {}
    with start_database(artifacts, folder) as server:
        version = _read_version(server)
        snapshots = raw["snapshot"] = [measure_snapshot(BenchShop(server, bench.kafka), rows) for _ in range(rounds)]
        bench.log(f"snapshot: {rounded(median(rate for _, rate in snapshots))} rows/s")
        live_results = raw["live"] = [measure_delays(BenchShop(server, bench.kafka), live_s) for _ in range(rounds)]
        bench.log("live: done")
        visibility = raw["visible"] = [
            measure_visibility(BenchShop(server, bench.kafka), live_s) for _ in range(rounds)
        ]
        bench.log("visible: done")
        throughputs = raw["sustained"] = [
            measure_throughput(BenchShop(server, bench.kafka), burst) for _ in range(rounds)
        ]
        bench.log(f"sustained: {rounded(median(throughputs))} rows/s")
    shutil.rmtree(folder, ignore_errors=True)
    costs: dict[str, list[list[TransactionCost]]] = {}
    for name, option in BINARY_LOG.items():
        with start_database(artifacts, folder, None, option, "--server-id=1", "--binlog-format=ROW") as server:
            costs[name] = [measure_cost(BenchShop(server, bench.kafka), inserts) for _ in range(rounds)]
        shutil.rmtree(folder, ignore_errors=True)
        bench.log(f"cost {name}: done")
    store_raw_numbers(f"source-{database}", raw | {"cost": costs})
    delays = sorted(delay for delays_of_round, _ in live_results for delay in delays_of_round)
    first_s = min(FIRST_S, live_s // 2)
    first = first_s * LIVE_RATE // ASK_EVERY
    visible_first = sorted(delay for delays_of_round in visibility for delay in delays_of_round[:first])
    visible_later = sorted(delay for delays_of_round in visibility for delay in delays_of_round[first:])
    results = table(
        ["what", "measured"],
        [
            [f"snapshot of {rows:,} rows, rows/s", rounded(median(rate for _, rate in snapshots))],
            ["the same rows by a plain SELECT, rows/s", rounded(median(rate for rate, _ in snapshots))],
            [f"live at {LIVE_RATE} orders/s: commit to Kafka, p50 ms", f"{quantile(delays, 0.5) * 1000:.1f}"],
            ["p99 ms", f"{quantile(delays, 0.99) * 1000:.1f}"],
            ["most rows in the outbox meanwhile", f"{max(max_rows for _, max_rows in live_results):,}"],
            ["commit to the answer of a worker, p50 ms", f"{quantile(visible_later, 0.5) * 1000:.1f}"],
            ["p99 ms", f"{quantile(visible_later, 0.99) * 1000:.1f}"],
            [
                f"of the first {first_s} s of a worker, p50 and p99 ms",
                f"{quantile(visible_first, 0.5) * 1000:.1f} and {quantile(visible_first, 0.99) * 1000:.1f}",
            ],
            [f"sustained, {WRITERS} writers, rows/s", rounded(median(throughputs))],
            *(row for name, costs_of_name in costs.items() for row in _cost_rows(name, costs_of_name)),
        ],
    )
    how = HOW.format(rate=LIVE_RATE, every=ASK_EVERY, writers=WRITERS, rows=ROWS_PER_INSERT)
    return f"On {version}. Medians of {rounds}; times of all rounds together.\n\n{results}\n\n{how}\n\n{describe_run()}"


def _cost_rows(server: str, costs: list[list[TransactionCost]]) -> list[list[str]]:
    """Return the rows of the table for the cost on one server: without triggers, with, published."""
    plain, triggered, published = (
        TransactionCost(median(cost[number].rate for cost in costs), median(cost[number].cpu_us for cost in costs))
        for number in range(3)
    )
    return [
        [f"{server}: the shop's transactions/s, without triggers", rounded(plain.rate)],
        ["with triggers", f"{rounded(triggered.rate)} ({triggered.rate / plain.rate - 1:+.0%})"],
        ["with triggers and a running source", f"{rounded(published.rate)} ({published.rate / plain.rate - 1:+.0%})"],
        ["the server's CPU per transaction without triggers, µs", f"{plain.cpu_us:.0f}"],
        ["with triggers", f"{triggered.cpu_us:.0f} ({triggered.cpu_us / plain.cpu_us - 1:+.0%})"],
    ]


def _read_version(server: DatabaseServer) -> str:
    with closing(
        mysql.connector.connect(
            host=server.host, port=server.port, user=server.user, password=server.password, use_pure=True,
            charset="utf8mb4", collation="utf8mb4_general_ci",
        )
    ) as connection, closing(connection.cursor()) as cursor:  # fmt: skip
        cursor.execute("SELECT VERSION()")
        version = cursor.fetchone()[0]
    return version if "MariaDB" in version else f"MySQL {version}"


def measure_snapshot(shop: BenchShop, rows: int) -> tuple[float, float]:
    """Return the rows per second of a plain SELECT and of a snapshot."""
    shop.run("source", "setup")
    with closing(shop.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(f"DROP TRIGGER {shop.name}_lately_purchase_outbox_insert")
    shop.fill(rows)
    with closing(shop.connect()) as connection, closing(connection.cursor()) as cursor:
        begun = time.monotonic()
        cursor.execute("SELECT * FROM orders")
        while cursor.fetchmany(2_000):
            pass
        plain = time.monotonic() - begun
    return rows / plain, rows / shop.run("source", "snapshot", "--all")


def measure_delays(shop: BenchShop, seconds: int) -> tuple[list[float], int]:
    """Return the delay of every order in seconds, and the maximum of rows in the outbox."""
    shop.run("source", "setup")
    count, max_rows, stopping = LIVE_RATE * seconds, 0, threading.Event()
    with shop.publishing(), ThreadPoolExecutor() as pool, closing(shop.connect()) as connection:
        arriving = pool.submit(shop.collect_arrivals, stopping, count)
        committed = {}
        with closing(connection.cursor()) as cursor:
            begun = time.monotonic()
            for number in range(count):
                pause = begun + number / LIVE_RATE - time.monotonic()
                if pause > 0:
                    time.sleep(pause)
                cursor.execute(INSERT, order_row(number))
                connection.commit()
                committed[f"live-{number}"] = time.time()
                if number % LIVE_RATE == 0:
                    cursor.execute(f"SELECT COUNT(*) FROM {shop.outbox}")
                    max_rows = max(max_rows, cursor.fetchone()[0])
                    connection.rollback()
        arrived = _await_arrivals(arriving, stopping)
    return [arrived[order] - committed[order] for order in committed], max_rows


def measure_visibility(shop: BenchShop, seconds: int) -> list[float]:
    """Return the seconds from COMMIT to a response with the order, for some orders."""
    shop.run("source", "setup")
    port = find_free_port()
    shop.env |= {"LATELY_WEB_PORT": str(port), "LATELY_DATA_DIR": str(FOLDER / "run" / shop.name / "state")}
    worker = shop.lately_process("worker", "-l", "info")
    try:
        worker.start()
        wait_ready(worker, lambda: has_status_200(port, "/readyz"), 60, "200 of /readyz")
        with shop.publishing(), ThreadPoolExecutor(32) as pool, closing(shop.connect()) as connection:
            with closing(connection.cursor()) as cursor:
                delays, begun = [], time.monotonic()
                for number in range(LIVE_RATE * seconds):
                    pause = begun + number / LIVE_RATE - time.monotonic()
                    if pause > 0:
                        time.sleep(pause)
                    cursor.execute(INSERT, order_row(number))
                    connection.commit()
                    if number % ASK_EVERY == 0:
                        delays.append(pool.submit(_measure_visible, port, number, time.monotonic()))
                return [future.result() for future in delays]
    finally:
        worker.kill()


def _measure_visible(port: int, number: int, committed: float) -> float:
    order, user = order_row(number)[0], order_row(number)[2]
    if not has_status_200(port, f"/v1/users/{user}/purchases?after_order={order}&wait_ms=5000"):
        raise RuntimeError(f"the order {order} was not visible within 5 s")
    return time.monotonic() - committed


def has_status_200(port: int, path: str) -> bool:
    """Return True if the status of the response is 200."""
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status == 200
    except OSError:
        return False


def measure_throughput(shop: BenchShop, rows: int) -> float:
    """Return the rows per second while writers insert at full speed."""
    shop.run("source", "setup")
    stopping = threading.Event()
    with shop.publishing(), ThreadPoolExecutor() as pool:
        arriving = pool.submit(shop.collect_arrivals, stopping, rows)
        each = rows // WRITERS
        for future in [pool.submit(insert_orders, shop, number * each, each) for number in range(WRITERS)]:
            future.result()
        arrived = _await_arrivals(arriving, stopping)
    times = sorted(arrived.values())
    return len(times) / (times[-1] - times[0])


def measure_cost(shop: BenchShop, transactions: int) -> list[TransactionCost]:
    """Return the cost of a transaction without triggers, with them, and with a running source."""
    firsts = iter(range(0, 10 * transactions, transactions))

    def measure_inserts() -> TransactionCost:
        return _insert_singly(shop, next(firsts), transactions)

    measure_inserts()  # a new server is slow at first
    before = measure_inserts()
    shop.run("source", "setup")
    triggered = measure_inserts()
    with shop.publishing():
        published = measure_inserts()
    shop.run("source", "teardown", "--force")
    after = measure_inserts()
    return [TransactionCost((before.rate + after.rate) / 2, (before.cpu_us + after.cpu_us) / 2), triggered, published]


def _insert_singly(shop: BenchShop, first: int, count: int) -> TransactionCost:
    each = count // WRITERS
    begun, computed = time.monotonic(), _cpu_s(shop.server.process.pid)
    with ThreadPoolExecutor(WRITERS) as pool:
        for future in [pool.submit(insert_orders, shop, first + number * each, each, 1) for number in range(WRITERS)]:
            future.result()
    spent = time.monotonic() - begun
    return TransactionCost(count / spent, (_cpu_s(shop.server.process.pid) - computed) / count * 1e6)


def _cpu_s(pid: int) -> float:
    """Return the seconds of processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def insert_orders(shop: BenchShop, first: int, count: int, batch_rows: int = ROWS_PER_INSERT) -> None:
    """Commit orders of the shop, `batch_rows` in a transaction."""
    with closing(shop.connect()) as connection, closing(connection.cursor()) as cursor:
        for start in range(first, first + count, batch_rows):
            cursor.executemany(INSERT, [order_row(number) for number in range(start, start + batch_rows)])
            connection.commit()


def _await_arrivals(arriving, stopping: threading.Event) -> dict[str, float]:
    """Return the arrivals when all orders have arrived. Raises TimeoutError after a minute."""
    try:
        return arriving.result(60)
    finally:
        stopping.set()
