"""The server's errors during setup and teardown: the cause of each, and the next step."""

from __future__ import annotations

import re
from collections.abc import Sequence

import mysql.connector
from mysql.connector import errorcode

from app.errors import BadSource, DatabaseAway
from app.settings import Settings
from source.outbox_table import displayed_outbox

_PRINT_SQL = "let an administrator execute the output of `lately source setup --print-sql`"
_NO_TABLE_OF_OURS = (
    "the table {outbox} or a table beside it was not created by Lately: rename that table, or set LATELY_SOURCE_OUTBOX "
    "to another name"
)

_DENIED = {
    errorcode.ER_TABLEACCESS_DENIED_ERROR,
    errorcode.ER_COLUMNACCESS_DENIED_ERROR,
    errorcode.ER_DBACCESS_DENIED_ERROR,
    errorcode.ER_SPECIFIC_ACCESS_DENIED_ERROR,
}
_OTHER_COLUMNS = {
    errorcode.ER_BAD_FIELD_ERROR,
    errorcode.ER_BAD_NULL_ERROR,
    errorcode.ER_NO_DEFAULT_FOR_FIELD,
    errorcode.ER_WRONG_VALUE_COUNT_ON_ROW,
}
_CONNECTION_LOST = {errorcode.CR_SERVER_GONE_ERROR, errorcode.CR_SERVER_LOST, 2055}

_DEFINER_PRIVILEGES = re.compile(r"SET USER|SET_USER_ID|SET_ANY_DEFINER|ALLOW_NONEXISTENT_DEFINER")
#: "X command denied to user 'u'@'h' for …"; the words after it name the column and the table.
_COMMAND_DENIED = re.compile(r"([A-Z][A-Z, ]*) command denied to user ('.*?'@'.*?') for (.*)", re.DOTALL)

#: Causes and next steps that need nothing but the error number.
_STEPS: dict[int | None, str] = {
    errorcode.ER_BINLOG_CREATE_ROUTINE_NEED_SUPER: (
        "the binary log is on, and only a user with SUPER may create triggers: SET GLOBAL "
        f"log_bin_trust_function_creators = 1, also in the server's configuration file; or {_PRINT_SQL}"
    ),
    errorcode.ER_LOCK_WAIT_TIMEOUT: "a transaction or LOCK TABLES holds a table: end it, or try again later",
    errorcode.ER_LOCK_DEADLOCK: "the shop's statements and this one waited for each other: try again",
    errorcode.ER_WRONG_OBJECT: (
        "{database}.{table} is a view, and views have no triggers: set LATELY_SOURCE_TABLE to the table below it, or "
        "LATELY_SOURCE_MODE=watermark"
    ),
    errorcode.ER_TRG_ALREADY_EXISTS: "another process creates triggers at the same time: try again",
    errorcode.ER_TRG_DOES_NOT_EXIST: "another process removes triggers at the same time: try again",
    errorcode.ER_NO_SUCH_USER: (
        "the definer of a trigger does not exist, so the shop's own statements would fail: create the account "
        "(`lately source setup --print-sql` prints the statements), or correct LATELY_SOURCE_DEFINER"
    ),
    errorcode.ER_BINLOG_STMT_MODE_AND_ROW_ENGINE: "SET GLOBAL binlog_format = ROW, also in the configuration file",
    errorcode.ER_NO_SUCH_TABLE: "another process removed a table at the same time: try again",
    errorcode.ER_BAD_DB_ERROR: "create the database, or correct LATELY_MYSQL_DATABASE and LATELY_SOURCE_OUTBOX",
    errorcode.ER_READ_ONLY_MODE: "the server is read-only: set LATELY_MYSQL_HOST to the primary",
    errorcode.ER_BEFORE_DML_VALIDATION_ERROR: (
        "Group Replication refuses writes to a table: the server's log names the rule that the table breaks"
    ),
}


def explain(
    problem: str, exc: mysql.connector.Error, settings: Settings, missing: Sequence[str] = ()
) -> BadSource | DatabaseAway:
    """Return an error with the problem, the server's message, the cause and the next step.

    `missing` contains the GRANT statements of privileges that the user or the definer lacks. A
    privilege is named only where the server has refused one.
    """
    if exc.errno in _CONNECTION_LOST:
        return DatabaseAway(f"{problem} ({exc}): try again")
    names = {
        "database": settings.mysql_database, "table": settings.source_table, "outbox": displayed_outbox(settings),
    }  # fmt: skip
    return BadSource(f"{problem} ({exc}): {_next_step(exc, settings, missing).format(**names)}")


def _next_step(exc: mysql.connector.Error, settings: Settings, missing: Sequence[str]) -> str:
    message = exc.msg or ""
    if exc.errno in _DENIED:
        return _escape(_denied_step(exc.errno, message, settings, missing))
    if exc.errno == errorcode.ER_OPTION_PREVENTS_STATEMENT:
        if "read-only" in message or "read_only" in message:
            return "the server is read-only: set LATELY_MYSQL_HOST to the primary, or SET GLOBAL read_only = 0"
        return "change this option of the server"
    if exc.errno in _OTHER_COLUMNS:
        return _NO_TABLE_OF_OURS
    return _STEPS.get(exc.errno, "correct this on the server, then try again")


def _denied_step(errno: int | None, message: str, settings: Settings, missing: Sequence[str]) -> str:
    if errno == errorcode.ER_SPECIFIC_ACCESS_DENIED_ERROR and _DEFINER_PRIVILEGES.search(message):
        definer = settings.source_definer or "of an earlier setup"
        return (
            f"only a user with this privilege may create triggers with the definer {definer}, and the definer must "
            f"exist: {_PRINT_SQL}, or unset LATELY_SOURCE_DEFINER"
        )
    if missing:
        return "; ".join(missing) + _schema_step(message, settings)
    denied = _COMMAND_DENIED.search(message)
    if denied is None:
        return "GRANT this privilege; `lately source check` names the missing ones"
    return f"GRANT {denied[1]} on {denied[3]} to {denied[2]}; `lately source check` names the missing privileges"


def _schema_step(message: str, settings: Settings) -> str:
    schema, table = settings.outbox
    if f"to database '{schema}'" not in message:
        return ""
    return f"; or set LATELY_SOURCE_OUTBOX={table} to create the outbox in the shop's database"


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
