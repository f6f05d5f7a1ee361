"""Connections to the shop's MySQL or MariaDB."""

from __future__ import annotations

from contextlib import suppress

import mysql.connector
from mysql.connector import errorcode
from mysql.connector.abstracts import MySQLConnectionAbstract

from app.config import Settings
from app.errors import BadSource, ServerAway

Connection = MySQLConnectionAbstract

LOCK_WAIT_S = 10
IDLE_S = 60

#: Errors of which waiting does not help.
_REFUSALS = {
    errorcode.ER_ACCESS_DENIED_ERROR,
    errorcode.ER_DBACCESS_DENIED_ERROR,
    errorcode.ER_BAD_DB_ERROR,
}


def connect(settings: Settings) -> Connection:
    """Open a connection: UTC, utf8mb4, autocommit, and READ COMMITTED so that no read locks the shop's rows.

    Raises BadSource when the server refuses the user or has no such database, ServerAway when it does not answer.
    """
    where = f"{settings.mysql_user}@{settings.mysql_host}:{settings.mysql_port}/{settings.mysql_database}"
    try:
        connection = mysql.connector.connect(
            host=settings.mysql_host,
            port=settings.mysql_port,
            user=settings.mysql_user,
            password=settings.mysql_password,
            database=settings.mysql_database,
            charset="utf8mb4",
            # MariaDB does not know the collation that the connector asks for by itself.
            collation="utf8mb4_general_ci",
            time_zone="+00:00",
            autocommit=True,
            connection_timeout=10,
            use_pure=True,
        )
    except mysql.connector.Error as exc:
        if exc.errno in _REFUSALS:
            raise BadSource(f"MySQL refuses {where}: {exc.msg}; see LATELY_MYSQL_*") from None
        raise ServerAway(f"no answer from MySQL as {where} ({exc}): start it, or set LATELY_MYSQL_*") from None
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        # A leader that is frozen, or whose machine is gone, loses its lock with its connection.
        cursor.execute(f"SET SESSION wait_timeout = {IDLE_S}")
        # Whoever waits for a table's lock makes the shop wait behind him.
        cursor.execute(f"SET SESSION lock_wait_timeout = {LOCK_WAIT_S}")
    return connection


def server_name(connection: Connection) -> str:
    """A name of the server that stays the same over restarts: MySQL's uuid, MariaDB's uid or its server id."""
    for variable in ("server_uuid", "server_uid", "server_id"):
        with suppress(mysql.connector.Error), connection.cursor() as cursor:
            cursor.execute(f"SELECT @@global.{variable}")
            return str(cursor.fetchone()[0])
    return "unknown"


def server_time(connection: Connection) -> int:
    """The server's clock, in microseconds since 1970 UTC."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)")
        return cursor.fetchone()[0]


def text(value: str | bytes | bytearray) -> str:
    """A name from information_schema, which MySQL 8 returns as bytes."""
    return value if isinstance(value, str) else bytes(value).decode()
