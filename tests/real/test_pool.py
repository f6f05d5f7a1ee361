"""Connections that reads share: nothing of one read is visible in the next, and a broken one is never used."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import mysql.connector
import pytest

from app.errors import DatabaseAway
from app.settings import Settings
from local.artifacts import Artifacts
from local.database import start_database
from local.database_server import DatabaseServer
from source.mysql import Connection, connect, execute, fetch_all
from source.pool import MAX_AGE_S, ConnectionPool
from tests.kit.eventually import eventually

pytestmark = pytest.mark.both_databases

#: Everything that a read could leave behind.
LEFTOVERS = [
    "SET SESSION time_zone = '+05:00', autocommit = 0, wait_timeout = 5, lock_wait_timeout = 1, sql_mode = 'ANSI'",
    "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET NAMES latin1",
    "SET @x = 1, @traceparent = 'y'",
    "DO GET_LOCK('lately:x', 0)",
    "CREATE TEMPORARY TABLE t (a INT)",
    "START TRANSACTION",
    "INSERT INTO kept VALUES (1)",
]
STATE = (
    "SELECT @@time_zone, @@autocommit, @@wait_timeout, @@lock_wait_timeout, @@sql_mode, @@character_set_client,"
    " @@character_set_results, @@collation_connection, DATABASE(), @x, @traceparent, IS_USED_LOCK('lately:x'),"
    " (SELECT COUNT(*) FROM kept)"
)


class Clock:
    """A time that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def server(database_artifacts: Artifacts, tmp_path_factory) -> Iterator[DatabaseServer]:
    """A server of its own, because a test freezes it."""
    with start_database(database_artifacts, tmp_path_factory.mktemp("pool")) as server:
        with closing(connect(Settings(mysql_port=server.port, mysql_database=""))) as connection:
            execute(connection, "CREATE DATABASE shop")
            execute(connection, "CREATE TABLE shop.kept (a INT)")
        yield server


@pytest.fixture
def settings(server: DatabaseServer) -> Settings:
    return Settings(mysql_port=server.port)


@pytest.fixture
def pool(settings: Settings) -> Iterator[ConnectionPool]:
    with closing(ConnectionPool(settings, 2)) as pool:
        yield pool


def state(connection: Connection) -> tuple:
    # The variable has another name on MariaDB before 11.1.
    isolation = fetch_all(connection, tuple, "SHOW VARIABLES LIKE 't%x%isolation' ")
    (row,) = fetch_all(connection, tuple, STATE)
    return (*row, *isolation)


def id_of(pool: ConnectionPool) -> int | None:
    with pool.borrow() as connection:
        execute(connection, "DO 1")
        return connection.connection_id


def is_open(settings: Settings, number: int | None) -> bool:
    with closing(connect(settings)) as connection:
        return (number,) in [row[:1] for row in fetch_all(connection, tuple, "SHOW PROCESSLIST")]


def test_consecutive_reads_share_a_connection(pool: ConnectionPool):
    assert len({id_of(pool) for _ in range(3)}) == 1


def test_nothing_of_a_read_is_left_for_the_next(pool: ConnectionPool, settings: Settings):
    with closing(connect(settings)) as connection:
        expected = state(connection)
    with pool.borrow() as connection:
        first = connection.connection_id
        for statement in LEFTOVERS:
            execute(connection, statement)
        assert state(connection) != expected
    with pool.borrow() as connection:
        assert connection.connection_id == first
        assert state(connection) == expected
        with pytest.raises(mysql.connector.Error, match="doesn't exist"):
            execute(connection, "SELECT * FROM t")


def test_after_an_error_a_connection_is_not_used_again(pool: ConnectionPool, settings: Settings):
    first = id_of(pool)

    def read_in_part() -> None:
        with pool.borrow() as connection:
            connection.cursor().execute("SELECT 1 UNION SELECT 2")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read_in_part()
    assert id_of(pool) != first
    eventually(lambda: not is_open(settings, first), 10)


def test_a_connection_that_the_server_has_ended_is_replaced(pool: ConnectionPool, settings: Settings):
    first = id_of(pool)
    with closing(connect(settings)) as connection:
        execute(connection, f"KILL {first}")
    eventually(lambda: not is_open(settings, first), 10)
    assert id_of(pool) != first


def test_a_connection_is_used_for_a_limited_time(settings: Settings):
    clock = Clock()
    with closing(ConnectionPool(settings, 2, clock)) as pool:
        first = id_of(pool)
        clock.now += MAX_AGE_S - 1
        assert id_of(pool) == first
        clock.now += 2
        assert id_of(pool) != first
        eventually(lambda: not is_open(settings, first), 10)


def test_reads_at_once_have_connections_of_their_own_and_few_stay_open(settings: Settings):
    with closing(ConnectionPool(settings, 1)) as pool:
        with pool.borrow() as first, pool.borrow() as second, pool.borrow() as third:
            ids = {first.connection_id, second.connection_id, third.connection_id}
        assert len(ids) == 3
        eventually(lambda: sum(is_open(settings, number) for number in ids) == 1, 10)


def test_threads_never_share_a_connection_at_the_same_time(settings: Settings):
    with closing(ConnectionPool(settings, 3)) as pool:

        def read(number: int) -> int:
            with pool.borrow() as connection:
                execute(connection, f"SET @n = {number}")
                execute(connection, "DO SLEEP(0.001)")
                return int(fetch_all(connection, tuple, "SELECT @n")[0][0])

        with ThreadPoolExecutor(6) as threads:
            assert list(threads.map(read, range(200))) == list(range(200))


def test_a_server_that_falls_silent_blocks_no_read(server: DatabaseServer, settings: Settings):
    opened: list[Connection] = []

    def open_once(settings: Settings) -> Connection:
        if opened:
            raise DatabaseAway("no answer from MySQL")
        opened.append(connect(settings))
        return opened[0]

    assert server.process.pid is not None
    with closing(ConnectionPool(settings, 1, connect=open_once)) as pool:
        id_of(pool)
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(DatabaseAway):
                id_of(pool)
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
