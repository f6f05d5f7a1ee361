"""Which transactions of the shop's server are open: the proof that no smaller id can appear any more."""

from __future__ import annotations

import time
from contextlib import closing

from app.settings import Settings
from domain.errors import LatelyError
from source.columns import quoted
from source.mysql import Connection, connect

#: A transaction that writes: its number, and when it began.
Writer = tuple[int, float]

# InnoDB gives real numbers, which ascend, to transactions that write; the others show 0 (MariaDB) or more than 2^48.
_READ_ONLY = 2**48

# InnoDB fills information_schema.innodb_trx anew when 0.1 s have passed since it was last read, by anyone.
_BUFFERED_S = 0.12
_TRIES = 25


class NoProof(LatelyError):
    """The open transactions cannot be seen, or only as they were some time ago."""


def open_writers(settings: Settings) -> frozenset[Writer]:
    """The transactions that write at this moment. Raises NoProof, ServerAway, BadSource, mysql.connector.Error.

    That the list is of this moment is proven each time: a connection that was just opened must find its own in it.
    """
    with closing(connect(settings)) as connection, connection.cursor() as cursor:
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        cursor.execute(f"SELECT 1 FROM {quoted(settings.source_table)} LIMIT 1")
        cursor.fetchall()
        for _ in range(_TRIES):
            found = _listed(connection)
            if any(thread == connection.connection_id for _, _, thread in found):
                return frozenset((number, began) for number, began, _ in found if 0 < number < _READ_ONLY)
            time.sleep(_BUFFERED_S)
    raise NoProof(
        "information_schema.innodb_trx does not show a transaction that was just begun: "
        "something reads it more than ten times a second, stop that"
    )


def _listed(connection: Connection) -> list[tuple[int, float, int]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT CAST(trx_id AS UNSIGNED), UNIX_TIMESTAMP(trx_started), trx_mysql_thread_id"
            " FROM information_schema.innodb_trx"
        )
        return [(number or 0, float(began), thread) for number, began, thread in cursor.fetchall()]


def oldest_s(connection: Connection) -> float | None:
    """Age of the oldest open transaction in seconds, None when there is none. Raises mysql.connector.Error."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT MAX(UNIX_TIMESTAMP(NOW(6)) - UNIX_TIMESTAMP(trx_started)) FROM information_schema.innodb_trx"
            f" WHERE trx_id > 0 AND trx_id < {_READ_ONLY}"
        )
        age = cursor.fetchone()[0]
    return None if age is None else float(age)
