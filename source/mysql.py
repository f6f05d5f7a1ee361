"""Connections to the shop's MySQL or MariaDB."""

from __future__ import annotations

import ssl
from contextlib import suppress

import mysql.connector
from mysql.connector import errorcode
from mysql.connector.abstracts import MySQLConnectionAbstract
from mysql.connector.connection import MySQLConnection
from mysql.connector.constants import ClientFlag
from mysql.connector.errorcode import CR_SSL_CONNECTION_ERROR
from mysql.connector.network import MySQLSocket

from app import tls
from app.errors import BadSource, ServerAway, WrongLibrary
from app.settings import Settings

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

    Raises BadSource when the server refuses the user, is not to be trusted or has no such database, ServerAway when it
    does not answer.
    """
    told = {
        "host": settings.mysql_host,
        "port": settings.mysql_port,
        "user": settings.mysql_user,
        "password": settings.mysql_password,
        "database": settings.mysql_database,
        "charset": "utf8mb4",
        # MariaDB does not know the collation that the connector asks for by itself.
        "collation": "utf8mb4_general_ci",
        "time_zone": "+00:00",
        "autocommit": True,
        "connection_timeout": 10,
    }
    context = tls.mysql(settings)
    try:
        if context is not None:
            connection = _Secured(context, **told)
        else:
            connection = MySQLConnection(**told, ssl_disabled=settings.mysql_tls == "DISABLED")
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            # A leader that is frozen, or whose machine is gone, loses its lock with its connection.
            cursor.execute(f"SET SESSION wait_timeout = {IDLE_S}")
            # Whoever waits for a table's lock makes the shop wait behind him.
            cursor.execute(f"SET SESSION lock_wait_timeout = {LOCK_WAIT_S}")
    except mysql.connector.Error as exc:
        raise _why(settings, exc) from None
    return connection


def _why(settings: Settings, exc: mysql.connector.Error) -> BadSource | ServerAway:
    where = f"{settings.mysql_user}@{settings.mysql_host}:{settings.mysql_port}/{settings.mysql_database}"
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return BadSource(
            f"the certificate of MySQL at {settings.mysql_host}:{settings.mysql_port} is not trusted "
            f"({cause.verify_message}): set LATELY_MYSQL_CA to the authority that signed it, and LATELY_MYSQL_HOST to "
            "a name that it has"
        )
    if exc.errno == CR_SSL_CONNECTION_ERROR:
        return BadSource(
            f"MySQL at {settings.mysql_host}:{settings.mysql_port} has no TLS, and LATELY_MYSQL_TLS is "
            f"{settings.mysql_tls}: turn it on there, or set that to PREFERRED"
        )
    if isinstance(cause, ssl.SSLError):
        return ServerAway(
            f"MySQL broke TLS off as {where} ({cause}): it is stopping, or does not trust the certificate in "
            f"LATELY_MYSQL_CERT ({settings.mysql_cert or 'unset'}): set one that it trusts"
        )
    if exc.errno == errorcode.ER_SECURE_TRANSPORT_REQUIRED:
        return BadSource(
            f"MySQL at {settings.mysql_host}:{settings.mysql_port} takes TLS only, and LATELY_MYSQL_TLS is "
            f"{settings.mysql_tls}: set that to VERIFY_IDENTITY or REQUIRED"
        )
    if exc.errno in _REFUSALS:
        return BadSource(f"MySQL refuses {where}: {exc.msg}; see LATELY_MYSQL_*")
    return ServerAway(f"no answer from MySQL as {where} ({exc}): start it, or set LATELY_MYSQL_*")


class _Secured(MySQLConnection):
    """Replaces: going on in the clear where the server has no TLS, and trusting the system's authorities, too."""

    def __init__(self, context: ssl.SSLContext, **told: object) -> None:
        self._context = context
        super().__init__(**told)

    def _do_handshake(self) -> None:
        super()._do_handshake()
        # Nothing was sent yet.
        if not self._client_flags & ClientFlag.SSL:
            raise mysql.connector.InterfaceError("the server has none", errno=CR_SSL_CONNECTION_ERROR)

    def _get_connection(self) -> MySQLSocket:
        connection = super()._get_connection()
        connection.build_ssl_context = lambda **_: self._context
        return connection

    def _open_connection(self) -> None:
        super()._open_connection()
        if getattr(self._socket.sock, "context", None) is not self._context:
            raise WrongLibrary("mysql-connector-python does not use the TLS that it was given: install an earlier one")


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
