"""Connections to the shop's MySQL or MariaDB, and statements whose rows have a declared type."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from typing import Any, TypeVar

import mysql.connector
from mysql.connector import errorcode
from mysql.connector.abstracts import MySQLConnectionAbstract
from mysql.connector.errorcode import CR_SSL_CONNECTION_ERROR

from app import tls
from app.errors import DatabaseAway, DatabaseRefused
from app.settings import Settings
from source.secure_connection import ClearTextRefused, SecureConnection

Connection = MySQLConnectionAbstract
#: Lends a connection for a read: `connected`, or the pool of a worker.
Borrow = Callable[[], AbstractContextManager[Connection]]

#: The columns of a row.
RowT = TypeVar("RowT", bound=tuple[object, ...])

LOCK_WAIT_S = 10
IDLE_TIMEOUT_S = 60

#: Statements that prepare a session. The collation is given because MariaDB lacks the connector's
#: default. wait_timeout: the server ends the connection of a frozen or lost leader, which also frees
#: its lock. lock_wait_timeout: while a statement waits for a table's lock, the shop's statements wait
#: behind it. They are one packet, because a worker sends them before each read.
SESSION = (
    "SET NAMES utf8mb4 COLLATE utf8mb4_general_ci, autocommit = 1, time_zone = '+00:00',"
    f" wait_timeout = {IDLE_TIMEOUT_S}, lock_wait_timeout = {LOCK_WAIT_S};"
    " SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
)

#: Errors that only a change of the settings or of the account can solve.
_REFUSALS = {
    errorcode.ER_ACCESS_DENIED_ERROR,
    errorcode.ER_ACCESS_DENIED_NO_PASSWORD_ERROR,
    errorcode.ER_ACCOUNT_HAS_BEEN_LOCKED,
    errorcode.ER_BAD_DB_ERROR,
    errorcode.ER_DBACCESS_DENIED_ERROR,
    errorcode.ER_HOST_NOT_PRIVILEGED,
    errorcode.ER_MUST_CHANGE_PASSWORD,
    errorcode.ER_MUST_CHANGE_PASSWORD_LOGIN,
    4151,  # MariaDB's ER_ACCOUNT_HAS_BEEN_LOCKED
}


def connect(settings: Settings) -> SecureConnection:
    """Open a connection with UTC, utf8mb4, autocommit and READ COMMITTED.

    With READ COMMITTED no read locks the shop's rows. Raises DatabaseRefused when the
    server refuses the user, has no trusted certificate or no such database; DatabaseAway when it
    does not answer.
    """
    options: dict[str, Any] = {
        "host": settings.mysql_host,
        "port": settings.mysql_port,
        "user": settings.mysql_user,
        "password": settings.mysql_password,
        "database": settings.mysql_database,
        "charset": "utf8mb4",
        # MariaDB does not have the connector's default collation.
        "collation": "utf8mb4_general_ci",
        "connection_timeout": 10,
    }
    requires_tls = settings.mysql_tls not in ("DISABLED", "PREFERRED")
    try:
        connection = SecureConnection(tls.mysql_context(settings), requires_tls, **options)
        for _ in connection.cmd_query_iter(SESSION):
            pass
    except mysql.connector.Error as exc:
        raise _connection_error(settings, exc) from None
    return connection


@contextmanager
def connected(settings: Settings) -> Iterator[Connection]:
    """Open a connection as `connect` does, and close it at the end of the block."""
    with closing(connect(settings)) as connection:
        yield connection


@contextmanager
def explain_errors(message: str) -> Iterator[None]:
    """Raise DatabaseAway with `message` and the server's error when a statement fails."""
    try:
        yield
    except mysql.connector.Error as exc:
        raise DatabaseAway(f"{message} ({exc}): try again") from None


def execute(connection: Connection, statement: str, parameters: Sequence[str | int] = ()) -> None:
    """Execute a statement that returns no rows. Raises mysql.connector.Error."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def fetch_all(
    connection: Connection, row_type: type[RowT], statement: str, parameters: Sequence[str | int] = ()
) -> list[RowT]:
    """Execute a statement and return all its rows. Raises mysql.connector.Error.

    The caller declares the types of the columns as `row_type`, for example `tuple[int, str |
    None]`. This is for the type checker; nothing is converted.
    """
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows: list[Any] = cursor.fetchall()
        return rows


def fetch_first(
    connection: Connection, row_type: type[RowT], statement: str, parameters: Sequence[str | int] = ()
) -> RowT | None:
    """Execute a statement that returns at most one row, and return the row; see `fetch_all`."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        row: Any = cursor.fetchone()
        return row  # type: ignore[no-any-return]  # the caller declares the type of the row


def fetch_row(
    connection: Connection, row_type: type[RowT], statement: str, parameters: Sequence[str | int] = ()
) -> RowT:
    """Execute a statement that always returns one row, and return the row; see `fetch_all`."""
    row = fetch_first(connection, row_type, statement, parameters)
    if row is None:
        raise mysql.connector.DataError(f"the server returned no row for {statement}")
    return row


def _connection_error(settings: Settings, exc: mysql.connector.Error) -> DatabaseRefused | DatabaseAway:
    server, mode = f"{settings.mysql_host}:{settings.mysql_port}", settings.mysql_tls
    login = f"{settings.mysql_user}@{server}/{settings.mysql_database}"
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DatabaseRefused(
            f"the certificate of MySQL at {server} is not trusted ({cause.verify_message}): set LATELY_MYSQL_CA to the "
            "authority that signed it, and LATELY_MYSQL_HOST to a name that the certificate contains"
        )
    if exc.errno == CR_SSL_CONNECTION_ERROR:
        return DatabaseRefused(
            f"MySQL at {server} has no TLS, and LATELY_MYSQL_TLS is {mode}: enable TLS on the server, or "
            "set LATELY_MYSQL_TLS to PREFERRED"
        )
    if isinstance(exc, ClearTextRefused):
        if mode == "PREFERRED":
            fix = "enable TLS on the server, which has none"
        else:
            fix = "set LATELY_MYSQL_TLS to VERIFY_IDENTITY or REQUIRED"
        return DatabaseRefused(
            f"MySQL asks for the password of {login} in clear text on a connection without TLS, as "
            f"caching_sha2_password does when its cache is empty; LATELY_MYSQL_TLS is {mode}, and the password was "
            f"not sent: {fix}"
        )
    if isinstance(cause, ssl.SSLError):
        return DatabaseAway(
            f"MySQL ended the TLS handshake for {login} ({cause}): the server is stopping, or it does not trust the "
            f"certificate in LATELY_MYSQL_CERT ({settings.mysql_cert or 'unset'}): set a certificate that it trusts"
        )
    if exc.errno == errorcode.ER_SECURE_TRANSPORT_REQUIRED:
        return DatabaseRefused(
            f"MySQL at {server} takes TLS only, and LATELY_MYSQL_TLS is {mode}: set it to VERIFY_IDENTITY or REQUIRED"
        )
    if exc.errno in _REFUSALS:
        return DatabaseRefused(f"MySQL refuses {login}: {exc.msg}; correct LATELY_MYSQL_*")
    if isinstance(exc, mysql.connector.NotSupportedError):
        return DatabaseRefused(
            f"MySQL refuses {login}: {exc.msg}; use caching_sha2_password, or mysql_native_password on MariaDB"
        )
    return DatabaseAway(f"no answer from MySQL as {login} ({exc}): start it, or set LATELY_MYSQL_*")


def read_version(connection: Connection) -> str:
    """Return the version of the server as it prints it. Raises mysql.connector.Error."""
    return to_text(fetch_row(connection, tuple[str | bytes], "SELECT VERSION()")[0])


def is_mariadb(connection: Connection) -> bool:
    """Return whether the server is MariaDB. Raises mysql.connector.Error."""
    return "mariadb" in read_version(connection).lower()


def read_server_name(connection: Connection) -> str:
    """Return a permanent name of the server: MySQL's uuid, MariaDB's uid or the server id."""
    for variable in ("server_uuid", "server_uid", "server_id"):
        with suppress(mysql.connector.Error):
            return str(fetch_row(connection, tuple[str | int], f"SELECT @@global.{variable}")[0])
    return "unknown"


def read_server_time(connection: Connection) -> int:
    """Return the server's clock in microseconds since 1970 UTC. Raises mysql.connector.Error."""
    return fetch_row(connection, tuple[int], "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)")[0]


def to_text(value: str | bytes | bytearray) -> str:
    """Convert a text of information_schema, which MySQL 8 returns as bytes."""
    return value if isinstance(value, str) else bytes(value).decode()
