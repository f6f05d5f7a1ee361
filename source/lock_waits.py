"""The cause of a lock wait timeout (error 1205): a locked table, or locked rows of the outbox."""

from __future__ import annotations

from contextlib import closing, suppress

import mysql.connector
from mysql.connector import errorcode

from app.settings import OUTBOX, Settings
from source.mysql import Connection, connect, execute, fetch_first, to_text
from source.outbox_table import displayed_outbox, quoted_outbox
from source.quoting import quote

_PROBE_WAIT_S = 1
#: Sessions that hold a lock on a whole table; readable with a privilege on performance_schema.
_MYSQL_HOLDER = (
    "SELECT t.processlist_id, t.processlist_user, t.processlist_host FROM performance_schema.metadata_locks l"
    " JOIN performance_schema.threads t ON t.thread_id = l.owner_thread_id"
    " WHERE l.object_schema = %s AND l.object_name = %s AND l.lock_status = 'GRANTED'"
    " AND l.lock_type IN ('SHARED_NO_READ_WRITE', 'SHARED_READ_ONLY', 'SHARED_NO_WRITE', 'EXCLUSIVE') LIMIT 1"
)
#: The same in MariaDB, where the plugin metadata_lock_info is installed.
_MARIADB_HOLDER = (
    "SELECT p.id, p.user, p.host FROM information_schema.metadata_lock_info l"
    " JOIN information_schema.processlist p ON p.id = l.thread_id WHERE l.table_schema = %s AND l.table_name = %s"
    " AND l.lock_mode IN ('MDL_SHARED_NO_READ_WRITE', 'MDL_SHARED_READ_ONLY', 'MDL_SHARED_NO_WRITE',"
    " 'MDL_EXCLUSIVE') LIMIT 1"
)


def explain(settings: Settings) -> str:
    """Return the cause of a lock wait timeout as far as this user may see it.

    The cause may have ended in the meantime. Raises BadSource, DatabaseAway, mysql.connector.Error.
    """
    outbox = displayed_outbox(settings) if settings.source_mode == OUTBOX else settings.source_table
    with closing(connect(settings)) as connection:
        holder = _find_holder(connection, settings)
        if holder is None and not _is_table_locked(connection, settings):
            return f"another transaction has locked rows of {outbox}: end it"
    cause = f"{holder or 'another session'} has locked the table {outbox}"
    if settings.source_mode == OUTBOX:
        cause += (
            f" (LOCK TABLES {settings.source_table} WRITE also locks the outbox, because the triggers write to it; "
            "FLUSH TABLES WITH READ LOCK locks all tables)"
        )
    return f"{cause}: publishing continues after UNLOCK TABLES"


def _find_holder(connection: Connection, settings: Settings) -> str | None:
    schema, table = settings.outbox if settings.source_mode == OUTBOX else _shop_table(settings)
    for statement in (_MYSQL_HOLDER, _MARIADB_HOLDER):
        with suppress(mysql.connector.Error):
            row = fetch_first(
                connection,
                tuple[int | None, str | bytes | None, str | bytes | None],
                statement,
                (schema, table),
            )
            if row is not None:
                return f"connection {row[0]} of {to_text(row[1] or '')}@{to_text(row[2] or '')}"
    return None


def _is_table_locked(connection: Connection, settings: Settings) -> bool:
    execute(connection, f"SET SESSION lock_wait_timeout = {_PROBE_WAIT_S}")
    if settings.source_mode == OUTBOX:
        # It deletes nothing, but needs the same lock on the table as the source.
        statement = f"DELETE FROM {quoted_outbox(settings)} WHERE id = -1 AND FALSE"
    else:
        statement = f"DO (SELECT 1 FROM {quote(settings.source_table)} LIMIT 1)"
    try:
        execute(connection, statement)
    except mysql.connector.Error as exc:
        if exc.errno == errorcode.ER_LOCK_WAIT_TIMEOUT:
            return True
        raise
    return False


def _shop_table(settings: Settings) -> tuple[str, str]:
    return settings.mysql_database, settings.source_table
