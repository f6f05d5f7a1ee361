"""Locks as rows of a table beside the outbox: taking one needs a privilege on this table.

The holder of a lock keeps a shared lock on its row, in an open transaction on a connection of its
own. The server frees it when this connection ends. The shared lock is compatible with a dump that
locks the table for reading, and gives the transaction no number, so that nobody who waits for the
writing transactions of the server waits for it. Steps to take a lock:

1. Lock the row `gate` exclusively: only one process at a time takes a lock.
2. Check that nobody has a lock on the row.
3. Lock the row in shared mode, on the connection that keeps it.
4. Write the holder's name to the row `<lock>.holder`, and free the gate.
"""

from __future__ import annotations

import os
import random
import socket
import time
from contextlib import closing, suppress

import mysql.connector
from mysql.connector import errorcode

from app.errors import BadSource
from app.settings import Settings
from source.mysql import Connection, connect, execute, fetch_all, fetch_first
from source.outbox_table import UNKNOWN_TABLE, displayed_outbox, is_in_shop_database, is_set_up, quoted_outbox

SUFFIX = "_locks"
LEADER, HANDOVER, SNAPSHOT = KINDS = ("leader", "handover", "snapshot")

_GATE = "gate"
#: Nobody locks this row, because it does not exist.
_NO_ROW = "none"
_HOLDER_SUFFIX = ".holder"
#: The row that names the topics of the outbox, see source.outbox_owner.
_OWNER = "owner"
_ROWS = (_GATE, *KINDS, *(f"{kind}{_HOLDER_SUFFIX}" for kind in KINDS), _OWNER)
_GATE_WAIT_S = 1
#: Two checks of a row at the same moment disturb each other, so a check is repeated.
_CHECKS, _CHECK_PAUSE_S = 8, 0.02
#: MySQL and MariaDB have different errors for NOWAIT.
_BUSY = {3572, errorcode.ER_LOCK_WAIT_TIMEOUT}


def table_statements(settings: Settings) -> list[str]:
    """Return the statements that create the table and its rows."""
    table = quoted_outbox(settings, SUFFIX)
    rows = ", ".join(f"('{name}')" for name in _ROWS)
    return [
        f"""CREATE TABLE IF NOT EXISTS {table} (
  name VARCHAR(32) CHARACTER SET ascii NOT NULL PRIMARY KEY,
  holder VARCHAR(255) NULL COMMENT 'host:process id',
  since TIMESTAMP(6) NULL,
  connection_id BIGINT UNSIGNED NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4""",
        f"INSERT IGNORE INTO {table} (name) VALUES {rows}",
    ]


def exists(connection: Connection, settings: Settings) -> bool:
    """Return whether the table exists; create it, or its missing rows, if the user may do so.

    False: the outbox is in the shop's database, as in earlier versions, which have no such table.
    Raises BadSource when there is no outbox, or it is in a schema of its own, and
    mysql.connector.Error.
    """
    table = quoted_outbox(settings, SUFFIX)
    try:
        if {name for (name,) in fetch_all(connection, tuple[str], f"SELECT name FROM {table}")} >= set(_ROWS):
            return True
    except mysql.connector.Error as exc:
        if exc.errno not in UNKNOWN_TABLE:
            raise
    if not is_set_up(connection, settings):
        raise BadSource(f"there is no outbox {displayed_outbox(settings)}: run `lately source setup` first")
    try:
        for statement in table_statements(settings):
            execute(connection, statement)
    except mysql.connector.Error as exc:
        if is_in_shop_database(settings):
            return False
        raise BadSource(
            f"the table {displayed_outbox(settings)}{SUFFIX} is missing and could not be created ({exc}): "
            "run `lately source setup`"
        ) from None
    return True


def drop(connection: Connection, settings: Settings) -> None:
    """Drop the table. Raises BadSource when a process holds a lock, mysql.connector.Error."""
    try:
        execute(connection, f"DROP TABLE IF EXISTS {quoted_outbox(settings, SUFFIX)}")
    except mysql.connector.Error as exc:
        if exc.errno != errorcode.ER_LOCK_WAIT_TIMEOUT:
            raise
        raise BadSource(
            f"the table {displayed_outbox(settings)}{SUFFIX} remains, because `lately source` is still running "
            f"({describe_holder(connection, settings, LEADER)}): stop it, and run `lately source teardown` again"
        ) from None


def try_acquire(settings: Settings, kind: str) -> Connection | None:
    """Take a lock; return the connection that keeps it until its end, or None: it is not free.

    Raises BadSource, DatabaseAway, mysql.connector.Error.
    """
    table = quoted_outbox(settings, SUFFIX)
    keeper: Connection | None = None
    try:
        with closing(connect(settings)) as gate:
            execute(gate, f"SET SESSION innodb_lock_wait_timeout = {_GATE_WAIT_S}")
            execute(gate, "START TRANSACTION")
            # 1.
            try:
                fetch_all(gate, tuple[int], f"SELECT 1 FROM {table} WHERE name = '{_GATE}' FOR UPDATE")
            except mysql.connector.Error as exc:
                if exc.errno in _BUSY:
                    return None
                raise
            # 2.
            keeper = connect(settings)
            if is_locked(keeper, settings, kind):
                keeper.close()
                return None
            # 3.
            execute(keeper, "START TRANSACTION")
            fetch_all(keeper, tuple[int], f"SELECT 1 FROM {table} WHERE name = '{kind}' LOCK IN SHARE MODE")
            # 4. A server that is read only at this moment keeps the former name.
            with suppress(mysql.connector.Error):
                execute(
                    gate,
                    f"UPDATE {table} SET holder = %s, since = NOW(6), connection_id = %s WHERE name = %s",
                    (f"{socket.gethostname()}:{os.getpid()}", keeper.connection_id or 0, f"{kind}{_HOLDER_SUFFIX}"),
                )
                execute(gate, "COMMIT")
    except BaseException:
        if keeper is not None:
            keeper.close()
        raise
    return keeper


def is_locked(connection: Connection, settings: Settings, kind: str) -> bool:
    """Return whether a process holds the lock. Raises mysql.connector.Error.

    `connection` has autocommit, so the check itself holds nothing. The error 1205 means that
    another session has locked the whole table.
    """
    for _ in range(_CHECKS):
        if not _is_row_busy(connection, settings, kind):
            return False
        time.sleep(random.uniform(0, _CHECK_PAUSE_S))  # noqa: S311 - no secret
    # MariaDB has one error for a locked row and for a locked table.
    fetch_all(connection, tuple[int], _check_statement(settings, _NO_ROW))
    return True


def describe_holder(connection: Connection, settings: Settings, kind: str) -> str:
    """Return who holds a lock: host, process id, since when, and the connection id."""
    row = fetch_first(
        connection,
        tuple[str | None, str | None, int | None],
        "SELECT holder, DATE_FORMAT(since, '%Y-%m-%dT%H:%i:%SZ'), connection_id"
        f" FROM {quoted_outbox(settings, SUFFIX)} WHERE name = '{kind}{_HOLDER_SUFFIX}'",
    )
    if row is None or row[0] is None:
        return "unknown process"
    return f"{row[0]} since {row[1]}, connection {row[2]}"


def read_owner(connection: Connection, settings: Settings) -> str | None:
    """Return the content of the row that names the owner of the outbox; None: there is none."""
    row = fetch_first(
        connection, tuple[str | None], f"SELECT holder FROM {quoted_outbox(settings, SUFFIX)} WHERE name = '{_OWNER}'"
    )
    return None if row is None else row[0]


def write_owner(connection: Connection, settings: Settings, owner: str, *, is_replaced: bool) -> None:
    """Write the owner of the outbox, if it has none or the present one is to be replaced."""
    condition = "" if is_replaced else " AND holder IS NULL"
    execute(
        connection,
        f"UPDATE {quoted_outbox(settings, SUFFIX)} SET holder = %s, since = NOW(6) WHERE name = '{_OWNER}'{condition}",
        (owner,),
    )


def holder_condition(settings: Settings, kind: str, connection_id: int) -> str:
    """Return the SQL condition that the newest holder of a lock is this connection."""
    return (
        f"(SELECT connection_id FROM {quoted_outbox(settings, SUFFIX)}"
        f" WHERE name = '{kind}{_HOLDER_SUFFIX}') = {connection_id}"
    )


def _is_row_busy(connection: Connection, settings: Settings, name: str) -> bool:
    try:
        fetch_all(connection, tuple[int], _check_statement(settings, name))
    except mysql.connector.Error as exc:
        if exc.errno in _BUSY:
            return True
        raise
    return False


def _check_statement(settings: Settings, name: str) -> str:
    return f"SELECT 1 FROM {quoted_outbox(settings, SUFFIX)} WHERE name = '{name}' FOR UPDATE NOWAIT"
