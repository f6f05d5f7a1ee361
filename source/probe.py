"""A trial of what the triggers will do, before the shop's table is touched.

A trigger runs with the privileges of its definer, not with those of this connection. In MariaDB
these are without roles. Only a trigger shows whether they are sufficient. The trial creates a table
of its own beside the outbox with one trigger, which has the same definer, reads the same columns
and writes to the outbox. It inserts a row, rolls back, and removes the table.
"""

from __future__ import annotations

import re
from contextlib import suppress

import mysql.connector
from mysql.connector import errorcode

from app.settings import Settings
from domain.events import PLACED
from source import triggers
from source.columns import Columns, payload_expression, text_expression, traceparent_expression
from source.mysql import Connection, execute
from source.outbox_table import quoted_outbox
from source.quoting import quote

#: The probe's table has the name of the outbox with this suffix.
SUFFIX = "_probe"


def try_triggers(connection: Connection, settings: Settings, columns: Columns) -> None:
    """Insert into the outbox by a trigger as the shop's statements will do, and roll back.

    Raises mysql.connector.Error when the server refuses it; a table of the probe that already
    exists is one of a process that was killed.
    """
    # 1. Without this user's privilege DROP the table stays, which does no harm, but not its trigger.
    remove(connection, settings)
    execute(
        connection,
        f"CREATE TABLE IF NOT EXISTS {quoted_outbox(settings, SUFFIX)} (id TINYINT NOT NULL PRIMARY KEY) ENGINE=InnoDB",
    )
    try:
        # 2.
        execute(connection, _trigger_statement(settings, columns))
        # 3. The columns of the outbox can be checked only by a row.
        execute(connection, "START TRANSACTION")
        execute(connection, f"INSERT INTO {quoted_outbox(settings, SUFFIX)} VALUES (1)")
    finally:
        with suppress(mysql.connector.Error):
            execute(connection, "ROLLBACK")
            remove(connection, settings)


def remove(connection: Connection, settings: Settings) -> None:
    """Remove the table and the trigger of the probe, if they exist. Raises mysql.connector.Error."""
    try:
        execute(connection, f"DROP TABLE IF EXISTS {quoted_outbox(settings, SUFFIX)}")
    except mysql.connector.Error as exc:
        if exc.errno != errorcode.ER_TABLEACCESS_DENIED_ERROR:
            raise
        with suppress(mysql.connector.Error):
            execute(connection, f"DROP TRIGGER IF EXISTS {quoted_outbox(settings, SUFFIX)}")


def is_about_probe(message: str) -> bool:
    """Return whether a server's error is about the table of the probe."""
    return re.search(rf"{SUFFIX}['`]", message) is not None


def _trigger_statement(settings: Settings, columns: Columns) -> str:
    table = f"{quote(settings.mysql_database)}.{quote(settings.source_table)}"
    order_id = f"{table}.{quote(columns['order_id'].name)}"
    insert = f"INSERT INTO {quoted_outbox(settings)} (event_id, aggregateid, type, traceparent, payload)"
    trace = traceparent_expression(settings, table, True)
    return (
        f"CREATE {triggers.definer_clause(settings)}TRIGGER {quoted_outbox(settings, SUFFIX)}"
        f" AFTER INSERT ON {quoted_outbox(settings, SUFFIX)} FOR EACH ROW BEGIN"
        f" {insert} SELECT UUID(), LEFT({text_expression(order_id)}, 255), '{PLACED}', {trace},"
        f" {payload_expression(columns, table)} FROM {table} WHERE FALSE;"
        f" {insert} VALUES (UUID(), NULL, '{PLACED}', NULL, '{{}}'); END"
    )
