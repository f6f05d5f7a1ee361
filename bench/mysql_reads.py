"""Cost of a connection to MySQL, and reads of users by a worker (`consistency=source`)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import NamedTuple

import mysql.connector

from app.settings import Settings
from bench.report import describe_run, median, rounded, store_raw_numbers, table
from bench.sides import FOLDER, ROOT
from local.artifacts import MARIADB, MYSQL, resolve
from local.database import start_database
from local.database_server import DatabaseServer
from local.downloads import MissingTool
from local.shop import TABLE
from source.mysql import SESSION, Borrow, Connection, connect, connected, execute, read_version
from source.pool import ConnectionPool
from source.user_rows import read_user_rows

HEADING = "Reads of MySQL"
USERS, ORDERS_PER_USER = 1_000, 20
#: The default of LATELY_SOURCE_READS.
THREADS = 4
HOW = """\
A connection: opened with TLS where the server has it (`LATELY_MYSQL_TLS=PREFERRED`), prepared and
closed, one after the other; by the connector's own means, and as Lately opens it, with one TLS
context for all. A read: all {orders} purchases of a random one of {users:,} users as for
`consistency=source`, in {threads} threads of one process; with a connection of the connector, with a
connection of Lately, or with a connection of the pool for each read. MySQL uses TLS, the local
MariaDB does not."""


class Reads(NamedTuple):
    """Milliseconds of a connection, and reads per second, each by the connector and by Lately."""

    plain_connection_ms: float
    connection_ms: float
    plain_reads: float
    connected_reads: float
    pooled_reads: float


def mysql_reads(log: Callable[[str], None], rounds: int, quick: bool) -> str:
    """Measure all rounds on MariaDB and, if there is one, on MySQL; return the text of the section."""
    columns: dict[str, list[Reads]] = {}
    for product in (MARIADB, MYSQL):
        try:
            artifacts = resolve(ROOT / ".lately", log, product)
        except MissingTool as exc:
            log(f"{product} is not measured: {exc}")
            continue
        folder = FOLDER / "run" / f"reads-{product}"
        with start_database(artifacts, folder) as server:
            settings = _create_shop(server)
            version = _read_version(settings)
            columns[version] = [measure_reads(settings, 1 if quick else 5) for _ in range(rounds)]
        shutil.rmtree(folder, ignore_errors=True)
    store_raw_numbers("reads", columns)
    labels = (
        "a connection by the connector, ms", "a connection by Lately, ms", "reads/s with a connection by the connector",
        "reads/s with a connection by Lately", "reads/s with the pool",
    )  # fmt: skip
    results = table(
        ["what", *columns],
        [
            [label, *(_format(median(reads[number] for reads in columns[version])) for version in columns)]
            for number, label in enumerate(labels)
        ],
    )
    how = HOW.format(orders=ORDERS_PER_USER, users=USERS, threads=THREADS)
    return f"Medians of {rounds}.\n\n{results}\n\n{how}\n\n{describe_run()}"


def measure_reads(settings: Settings, seconds: float) -> Reads:
    """Measure each figure for some seconds."""
    with closing(ConnectionPool(settings, THREADS)) as pool:
        return Reads(
            _milliseconds(lambda: _open_plain(settings).close(), seconds),
            _milliseconds(lambda: connect(settings).close(), seconds),
            _reads_per_second(settings, partial(_plain, settings), seconds),
            _reads_per_second(settings, partial(connected, settings), seconds),
            _reads_per_second(settings, pool.borrow, seconds),
        )


def _milliseconds(action: Callable[[], object], seconds: float) -> float:
    count, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        action()
        count += 1
    return (time.monotonic() - began) / count * 1000


def _reads_per_second(settings: Settings, borrow: Borrow, seconds: float) -> float:
    ends_at = time.monotonic() + seconds

    def read(first: int) -> int:
        count = 0
        while time.monotonic() < ends_at:
            user = f"user-{(first * 7919 + count * 104_729) % USERS}"
            assert len(read_user_rows(settings, [user], borrow).purchases[user]) == ORDERS_PER_USER
            count += 1
        return count

    with ThreadPoolExecutor(THREADS) as threads:
        return sum(threads.map(read, range(THREADS))) / seconds


def _open_plain(settings: Settings) -> Connection:
    connection = mysql.connector.connect(
        host=settings.mysql_host, port=settings.mysql_port, user=settings.mysql_user,
        password=settings.mysql_password, database=settings.mysql_database, charset="utf8mb4",
        collation="utf8mb4_general_ci", time_zone="+00:00", autocommit=True, use_pure=True,
    )  # fmt: skip
    for _ in connection.cmd_query_iter(SESSION):
        pass
    return connection


@contextmanager
def _plain(settings: Settings) -> Iterator[Connection]:
    with closing(_open_plain(settings)) as connection:
        yield connection


def _create_shop(server: DatabaseServer) -> Settings:
    """Create the demo shop with the orders of all users, and return the settings for it."""
    administrator = Settings(
        mysql_host=server.host, mysql_port=server.port, mysql_user=server.user, mysql_database="mysql"
    )
    with connected(administrator) as connection:
        for statement in ("CREATE DATABASE shop", "USE shop", TABLE):
            execute(connection, statement)
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO orders VALUES (%s, %s, %s, 9.90, '2026-11-01', 'card', 'phones')",
                [
                    (f"{number}-{user}", f"Product {number}", f"user-{user}")
                    for user in range(USERS)
                    for number in range(ORDERS_PER_USER)
                ],
            )
    return Settings(mysql_host=server.host, mysql_port=server.port, mysql_user=server.user)


def _read_version(settings: Settings) -> str:
    with connected(settings) as connection:
        version = read_version(connection)
    product = "MariaDB" if "MariaDB" in version else "MySQL"
    return f"{product} {version.partition('-')[0]}"


def _format(number: float) -> str:
    return f"{number:.1f}" if number < 100 else rounded(number)
