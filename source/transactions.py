"""Open transactions of the shop's server: they prove that no smaller id can appear any more."""

from __future__ import annotations

import random
import time
from contextlib import closing
from decimal import Decimal
from typing import NamedTuple

from app.settings import Settings
from domain.errors import LatelyError
from source.mysql import Connection, connect, execute, fetch_all, fetch_row
from source.quoting import quote

# InnoDB gives ascending numbers to transactions that write. Read-only transactions have 0 in
# MariaDB and a number of 2^48 or more in MySQL.
_FIRST_READ_ONLY_NUMBER = 2**48

# InnoDB refreshes information_schema.innodb_trx when its last read, by any client, was 0.1 s ago.
_LIST_REFRESH_S = 0.12
# Two clients that read every 0.12 s would keep each other from a fresh list: the pauses are random
# and grow. All attempts together take about 6 s.
_PAUSE_GROWTH_S = 0.1
_MAX_ATTEMPTS = 12


class WritingTransaction(NamedTuple):
    """An open transaction that writes: its number, and its start in seconds since 1970."""

    number: int
    began: float


class _Transaction(NamedTuple):
    number: int
    began: float
    thread: int


class TransactionListUnavailable(LatelyError):
    """The open transactions cannot be listed, or only as they were some time ago."""


def read_writing_transactions(settings: Settings) -> frozenset[WritingTransaction]:
    """Return the transactions that write at this moment.

    Each call proves that the list is up to date: it must contain the transaction of a connection
    that was just opened. Raises TransactionListUnavailable, DatabaseAway, BadSource,
    mysql.connector.Error.
    """
    with closing(connect(settings)) as connection:
        execute(connection, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
        fetch_all(connection, tuple[int], f"SELECT 1 FROM {quote(settings.source_table)} LIMIT 1")
        for attempt in range(_MAX_ATTEMPTS):
            transactions = _read_transactions(connection)
            if any(transaction.thread == connection.connection_id for transaction in transactions):
                return frozenset(
                    WritingTransaction(transaction.number, transaction.began)
                    for transaction in transactions
                    if 0 < transaction.number < _FIRST_READ_ONLY_NUMBER
                )
            time.sleep(_LIST_REFRESH_S + random.uniform(0, attempt * _PAUSE_GROWTH_S))  # noqa: S311
    raise TransactionListUnavailable(
        "information_schema.innodb_trx does not contain a transaction that has just started: "
        "another client reads it more than ten times a second, stop that client"
    )


def _read_transactions(connection: Connection) -> list[_Transaction]:
    rows = fetch_all(
        connection,
        tuple[int | None, int | Decimal, int],
        "SELECT CAST(trx_id AS UNSIGNED), UNIX_TIMESTAMP(trx_started), trx_mysql_thread_id"
        " FROM information_schema.innodb_trx",
    )
    return [_Transaction(number or 0, float(began), thread) for number, began, thread in rows]


def read_oldest_age_s(connection: Connection) -> float | None:
    """Return the age of the oldest open transaction that writes; None when there is none.

    Raises mysql.connector.Error.
    """
    (age,) = fetch_row(
        connection,
        tuple[Decimal | None],
        "SELECT MAX(UNIX_TIMESTAMP(NOW(6)) - UNIX_TIMESTAMP(trx_started)) FROM information_schema.innodb_trx"
        f" WHERE trx_id > 0 AND trx_id < {_FIRST_READ_ONLY_NUMBER}",
    )
    return None if age is None else float(age)
