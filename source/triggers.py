"""What the source needs in the shop's database: an outbox, three triggers, and a row that says where versions begin.

The ids of the outbox are the versions of the events. They grow per purchase, because two changes of one row hold its
lock one after the other. They start at the microseconds since 1970, and start anew from there whenever changes may
have gone unseen, so that they are above all ids given before; the version just below the start belongs to snapshots.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import mysql.connector
from mysql.connector import errorcode

from app.errors import BadSource
from app.settings import Settings
from domain.events import CHANGED, PLACED, REMOVED
from source.columns import Columns, as_text, payload, primary_key, quoted, shop_columns, traceparent
from source.mysql import Connection, text

_RIGHTS = "CREATE, ALTER, TRIGGER, LOCK TABLES, SELECT, INSERT, UPDATE and DELETE on the database"


def tables(settings: Settings) -> list[str]:
    """The statements that make the outbox and the row of its state."""
    return [
        f"""CREATE TABLE IF NOT EXISTS {quoted(settings.source_outbox)} (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  version BIGINT NULL COMMENT 'NULL: the id is the version',
  event_id CHAR(36) NOT NULL,
  aggregatetype VARCHAR(64) NOT NULL DEFAULT 'order',
  aggregateid VARCHAR(255) NULL,
  type VARCHAR(32) NOT NULL,
  payload LONGTEXT NOT NULL,
  traceparent VARCHAR(64) NULL,
  created_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4""",
        f"""CREATE TABLE IF NOT EXISTS {state_table(settings)} (
  id TINYINT NOT NULL PRIMARY KEY,
  first_version BIGINT NOT NULL
) ENGINE=InnoDB""",
    ]


def wanted_triggers(connection: Connection, settings: Settings) -> dict[str, str]:
    """Trigger name -> its statement, in the order in which they can be created while the shop writes.

    Raises BadSource when the shop's table or columns are not as they must be.

    Removals are caught first and insertions last: of a row whose insertion was caught, no later change is missed.
    """
    columns = shop_columns(connection, settings)
    key = [name for name, _ in primary_key(connection, settings)]
    table = quoted(settings.source_table)
    order_id = quoted(columns["order_id"][0])

    def insert(kind: str, side: str) -> str:
        subject = f"LEFT({as_text(f'{side}.{order_id}')}, 255)"
        return (
            f"INSERT INTO {quoted(settings.source_outbox)} (event_id, aggregateid, type, traceparent, payload)"
            f" VALUES (UUID(), {subject}, '{kind}', {traceparent(settings, side, True)}, {payload(columns, side)})"
        )

    changed = f"NOT ({_alike(payload(columns, 'OLD'), payload(columns, 'NEW'))}){_really(columns, key, table)}"
    bodies = {
        "delete": insert(REMOVED, "OLD"),
        "update": f"""IF {changed} THEN
  IF {_same_purchase(columns)} THEN
    {insert(CHANGED, "NEW")};
  ELSE
    {insert(REMOVED, "OLD")};
    {insert(PLACED, "NEW")};
  END IF;
END IF""",
        "insert": insert(PLACED, "NEW"),
    }
    return {
        f"{settings.source_outbox}_{event}": (
            f"CREATE TRIGGER {quoted(f'{settings.source_outbox}_{event}')}"
            f" AFTER {event.upper()} ON {table} FOR EACH ROW {body}"
        )
        for event, body in bodies.items()
    }


def _same_purchase(columns: Columns) -> str:
    names = [quoted(columns[name][0]) for name in ("user_id", "order_id", "product_name")]
    return " AND ".join(_alike(f"OLD.{name}", f"NEW.{name}") for name in names)


def _really(columns: Columns, key: Sequence[str], table: str) -> str:
    # UPDATE IGNORE leaves a row alone whose new key another one has, and runs the trigger all the same.
    if not key:
        return ""
    where = " AND ".join(f"{table}.{quoted(name)} = OLD.{quoted(name)}" for name in key)
    unchanged = _alike(payload(columns, table), payload(columns, "OLD"))
    return f" AND NOT EXISTS (SELECT 1 FROM {table} WHERE {where} AND {unchanged})"


def _alike(one: str, other: str) -> str:
    # Compared as bytes: to most collations "ann" and "Ann" are the same user.
    return f"CAST({one} AS BINARY) <=> CAST({other} AS BINARY)"


def install(connection: Connection, settings: Settings) -> None:
    """Create what is missing, or bring it up to date; doing it again changes nothing.

    Where a trigger has to change, the shop's writes wait for the moment it takes. Raises BadSource when MySQL does not
    allow it, or the table is not as it must be, before any trigger is touched.
    """
    wanted = wanted_triggers(connection, settings)
    try:
        with connection.cursor() as cursor:
            for statement in tables(settings):
                cursor.execute(statement)
            found = _installed(connection, settings)
            if first_version(connection, settings) is not None and found == {
                name: _body(statement) for name, statement in wanted.items()
            }:
                return
            _prove_rights(connection, settings)
            if found:
                lock(connection, settings)
            _begin_versions_anew(connection, settings)
            for name in found:
                cursor.execute(f"DROP TRIGGER {quoted(name)}")
            for statement in wanted.values():
                cursor.execute(statement)
            cursor.execute("UNLOCK TABLES")
    except mysql.connector.Error as exc:
        raise refused("the outbox could not be set up", exc) from None


def lock(connection: Connection, settings: Settings) -> None:
    """Wait until no transaction that has changed orders is open, and let none begin; ends with the connection."""
    tables = (quoted(settings.source_table), quoted(settings.source_outbox), state_table(settings))
    with connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLES {', '.join(f'{table} WRITE' for table in tables)}")


def take_version(connection: Connection, settings: Settings) -> int:
    """A version above those of all changes that are committed or under way, and below those of all later ones.

    The shop's writes wait for the moment it takes. Raises BadSource when nothing is set up, or a lock is not to be had.
    """
    if first_version(connection, settings) is None:
        raise BadSource(f"there is no outbox {settings.source_outbox}: run `lately source setup` first")
    outbox = quoted(settings.source_outbox)
    try:
        # Whoever is killed here leaves no row.
        connection.autocommit = False
        # Once the lock is there, no transaction is open that has taken an id.
        lock(connection, settings)
        with connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO {outbox} (event_id, type, payload) VALUES (UUID(), 'proof', '')")
            version = cursor.lastrowid
            cursor.execute("ROLLBACK")
            cursor.execute("UNLOCK TABLES")
        return version
    except mysql.connector.Error as exc:
        raise refused("no version could be taken", exc) from None


def _prove_rights(connection: Connection, settings: Settings) -> None:
    # The triggers run with our rights: without them the shop's own statements would fail.
    outbox = quoted(settings.source_outbox)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {quoted(settings.source_table)} LIMIT 1")
        cursor.fetchall()
        cursor.execute("START TRANSACTION")
        cursor.execute(f"INSERT INTO {outbox} (event_id, type, payload) VALUES (UUID(), 'proof', '')")
        cursor.execute(f"DELETE FROM {outbox} WHERE type = 'proof' AND id = LAST_INSERT_ID()")
        cursor.execute("ROLLBACK")


def _begin_versions_anew(connection: Connection, settings: Settings) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COALESCE(MAX(id), 0) FROM {quoted(settings.source_outbox)}")
        highest = cursor.fetchone()[0]
        for statement in versions(settings, max(now(), highest + 1)):
            cursor.execute(statement)


def versions(settings: Settings, first: int) -> list[str]:
    """The statements that let the ids of the outbox go on from `first`."""
    return [
        f"ALTER TABLE {quoted(settings.source_outbox)} AUTO_INCREMENT = {first}",
        f"REPLACE INTO {state_table(settings)} VALUES (1, {first})",
    ]


def now() -> int:
    """The microseconds since 1970, at which versions begin."""
    return time.time_ns() // 1000


def missing(connection: Connection, settings: Settings) -> list[str]:
    """The names of our triggers that do not exist, or are not as they have to be. Raises BadSource."""
    found, wanted = _installed(connection, settings), wanted_triggers(connection, settings)
    return [name for name, statement in wanted.items() if found.get(name) != _body(statement)]


def installed(connection: Connection, settings: Settings) -> bool:
    """Whether the outbox and its three triggers exist."""
    return len(_installed(connection, settings)) == 3 and first_version(connection, settings) is not None


def require(connection: Connection, settings: Settings) -> None:
    """Raise BadSource unless the outbox and its three triggers exist."""
    if not installed(connection, settings):
        raise BadSource(
            f"the outbox or a trigger is missing in {settings.mysql_database}, changes go unseen: "
            "run `lately source setup` first"
        )


def _installed(connection: Connection, settings: Settings) -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT trigger_name, action_statement FROM information_schema.triggers"
            " WHERE trigger_schema = %s AND event_object_table = %s",
            (settings.mysql_database, settings.source_table),
        )
        found = {text(name): " ".join(text(body).split()) for name, body in cursor.fetchall()}
    ours = {f"{settings.source_outbox}_{event}" for event in ("insert", "update", "delete")}
    return {name: body for name, body in found.items() if name in ours}


def _body(statement: str) -> str:
    return " ".join(statement.partition(" FOR EACH ROW ")[2].split())


def names(connection: Connection, settings: Settings) -> list[str]:
    """The names of our triggers that exist."""
    return sorted(_installed(connection, settings))


def first_version(connection: Connection, settings: Settings) -> int | None:
    """The id at which versions begin, or None when nothing is set up."""
    with connection.cursor() as cursor:
        try:
            cursor.execute(f"SELECT first_version FROM {state_table(settings)} WHERE id = 1")
        except mysql.connector.Error as exc:
            if exc.errno == errorcode.ER_NO_SUCH_TABLE:
                return None
            raise
        found = cursor.fetchone()
    return found[0] if found else None


def refused(what: str, exc: mysql.connector.Error) -> BadSource:
    """An error that says `what` MySQL refused and what to do about it."""
    hints = {
        errorcode.ER_BINLOG_CREATE_ROUTINE_NEED_SUPER: "set log_bin_trust_function_creators=1 on the server",
        errorcode.ER_LOCK_WAIT_TIMEOUT: "a transaction holds the table: end it, or try again later",
    }
    return BadSource(f"{what} ({exc}): {hints.get(exc.errno, f'the user needs {_RIGHTS}')}")


def state_table(settings: Settings) -> str:
    """The quoted name of the table that holds where versions begin."""
    return quoted(f"{settings.source_outbox}_state")
