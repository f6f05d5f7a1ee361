"""Objects of the source in the shop's database: outbox, three triggers, first version.

The ids of the outbox are the versions of the events. They grow per purchase, because two changes of
one row hold its lock one after the other. They start at the current time in microseconds since
1970. They are restarted there whenever changes may have been missed, so they are above all earlier
ids. The version just below the start is the version of snapshots.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import mysql.connector

from app.errors import BadSource
from app.settings import Settings
from domain.events import CHANGED, PLACED, REMOVED
from source import lock_table
from source.columns import (
    Columns,
    order_id_expression,
    payload_expression,
    read_primary_key,
    read_shop_columns,
    text_expression,
    traceparent_expression,
)
from source.installed_triggers import EVENTS, InstalledTrigger, normalize, read_triggers
from source.mysql import Connection, execute, fetch_first, fetch_row
from source.outbox_table import (
    STATE_SUFFIX,
    displayed_outbox,
    is_in_shop_database,
    quoted_outbox,
    read_first_version,
    trigger_name,
)
from source.quoting import quote, quote_account
from source.server_errors import explain

#: How far an id of the outbox may be ahead of the time, in microseconds: a day.
MAX_AHEAD = 86_400 * 1_000_000


#: Conditions that every row which a trigger writes fulfils. `proof` is a row that is rolled back.
#: MySQL allows no condition on the id, because it is AUTO_INCREMENT.
CHECKS = (
    f"type IN ('{PLACED}', '{CHANGED}', '{REMOVED}', 'proof')",
    f"version BETWEEN 0 AND {2**62}",
)


def schema_statement(settings: Settings) -> str:
    """Return the statement that creates the schema of the outbox."""
    return f"CREATE SCHEMA IF NOT EXISTS {quote(settings.outbox.schema)} DEFAULT CHARACTER SET utf8mb4"


def table_statements(settings: Settings) -> list[str]:
    """Return the statements that create the outbox and the table of the first version."""
    return [
        f"""CREATE TABLE IF NOT EXISTS {quoted_outbox(settings)} (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  version BIGINT NULL COMMENT 'NULL: the id is the version',
  event_id CHAR(36) NOT NULL,
  aggregatetype VARCHAR(64) NOT NULL DEFAULT 'order',
  aggregateid VARCHAR(255) NULL,
  type VARCHAR(32) NOT NULL,
  payload LONGTEXT NOT NULL,
  traceparent VARCHAR(64) NULL,
  created_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  {", ".join(f"CHECK ({condition})" for condition in CHECKS)}
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4""",
        f"""CREATE TABLE IF NOT EXISTS {quoted_outbox(settings, STATE_SUFFIX)} (
  id TINYINT NOT NULL PRIMARY KEY,
  first_version BIGINT NOT NULL
) ENGINE=InnoDB""",
        *lock_table.table_statements(settings),
    ]


def expected_triggers(connection: Connection, settings: Settings) -> dict[str, str]:
    """Return trigger name -> its statement, in the order in which they must be created.

    Raises BadSource when the shop's table or columns are unsuitable.
    """
    bodies = expected_bodies(connection, settings)
    names = {event: trigger_name(settings, event) for event in bodies}
    return {names[event]: trigger_statement(settings, names[event], event, body) for event, body in bodies.items()}


def trigger_statement(settings: Settings, name: str, event: str, body: str) -> str:
    """Return the statement that creates a trigger on the shop's table."""
    return (
        f"CREATE {definer_clause(settings)}TRIGGER {quote(name)}"
        f" AFTER {event.upper()} ON {quote(settings.source_table)} FOR EACH ROW {body}"
    )


def definer_clause(settings: Settings) -> str:
    """Return the clause of CREATE TRIGGER for the definer of the settings; empty for this user."""
    return f"DEFINER={quote_account(settings.source_definer)} " if settings.source_definer else ""


def expected_bodies(connection: Connection, settings: Settings) -> dict[str, str]:
    """Return event -> body of the trigger, in the order in which the triggers must be created.

    Raises BadSource when the shop's table or columns are unsuitable.
    """
    key = [column.name for column in read_primary_key(connection, settings)]
    return build_bodies(settings, read_shop_columns(connection, settings), key)


def build_bodies(settings: Settings, columns: Columns, key: Sequence[str]) -> dict[str, str]:
    """Return event -> body of the trigger; `key` contains the columns of the shop's primary key.

    The shop may write in between. The trigger of removals is first and that of insertions last:
    when the insertion of a row was captured, all later changes of the row are captured too.
    """
    table = quote(settings.source_table)

    def insert(event_type: str, qualifier: str) -> str:
        subject = f"LEFT({text_expression(order_id_expression(columns['order_id'], qualifier))}, 255)"
        trace, payload = traceparent_expression(settings, qualifier, True), payload_expression(columns, qualifier)
        return (
            f"INSERT INTO {quoted_outbox(settings)} (event_id, aggregateid, type, traceparent, payload)"
            f" VALUES (UUID(), {subject}, '{event_type}', {trace}, {payload})"
        )

    old, new = payload_expression(columns, "OLD"), payload_expression(columns, "NEW")
    changed = f"NOT ({_bytes_equal(old, new)}){_row_changed(columns, key, table)}"
    return {
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


def _same_purchase(columns: Columns) -> str:
    """Return the condition that an update does not change the fields that identify the purchase."""
    names = [quote(columns[name].name) for name in ("user_id", "order_id", "product_name")]
    return " AND ".join(_bytes_equal(f"OLD.{name}", f"NEW.{name}") for name in names)


def _row_changed(columns: Columns, key: Sequence[str], table: str) -> str:
    """Return a further condition that the table contains the new row.

    When another row has the new key, UPDATE IGNORE does not change the row, but runs the trigger.
    """
    if not key:
        return ""
    where = " AND ".join(f"{table}.{quote(name)} = OLD.{quote(name)}" for name in key)
    unchanged = _bytes_equal(payload_expression(columns, table), payload_expression(columns, "OLD"))
    return f" AND NOT EXISTS (SELECT 1 FROM {table} WHERE {where} AND {unchanged})"


def _bytes_equal(first: str, second: str) -> str:
    # As bytes, because in most collations "ann" and "Ann" are equal.
    return f"CAST({first} AS BINARY) <=> CAST({second} AS BINARY)"


def create_schema(connection: Connection, settings: Settings) -> None:
    """Create the schema of the outbox unless it exists. Raises mysql.connector.Error."""
    statement = "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s"
    exists = fetch_first(connection, tuple[int], statement, (settings.outbox.schema,)) is not None
    if not is_in_shop_database(settings) and not exists:
        execute(connection, schema_statement(settings))


def lock_tables(connection: Connection, settings: Settings) -> None:
    """Wait for the end of all transactions that have changed orders, and block new ones.

    The lock ends with the connection or with UNLOCK TABLES.
    """
    names = (quote(settings.source_table), quoted_outbox(settings), quoted_outbox(settings, STATE_SUFFIX))
    execute(connection, f"LOCK TABLES {', '.join(f'{name} WRITE' for name in names)}")


def reserve_version(connection: Connection, settings: Settings) -> int:
    """Return a version above all committed and open changes, and below all later changes.

    The shop's writes wait while it is reserved. Raises BadSource when there is no outbox, or MySQL
    does not allow the lock.
    """
    if read_first_version(connection, settings) is None:
        raise BadSource(f"there is no outbox {displayed_outbox(settings)}: run `lately source setup` first")
    outbox = quoted_outbox(settings)
    try:
        # Without autocommit, a process that is killed here leaves no row.
        connection.autocommit = False
        # After the lock is acquired, no transaction is open that has taken an id.
        lock_tables(connection, settings)
        with connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO {outbox} (event_id, type, payload) VALUES (UUID(), 'proof', '')")
            version = cursor.lastrowid
            cursor.execute("ROLLBACK")
            cursor.execute("UNLOCK TABLES")
    except mysql.connector.Error as exc:
        raise explain("no version could be reserved", exc, settings) from None
    if version is not None and version > now_microseconds() + MAX_AHEAD:
        first = read_first_version(connection, settings) or 0
        if version > first + MAX_AHEAD:
            raise BadSource(
                f"the next id of {displayed_outbox(settings)} is {version}, far ahead of the time: "
                "run `lately source setup`, which corrects it"
            )
    if version is None:
        raise BadSource(
            f"{displayed_outbox(settings)} has no AUTO_INCREMENT id: drop it, then run `lately source setup`"
        )
    return version


def restart_versions(connection: Connection, settings: Settings) -> None:
    """Let the ids continue at the current time, above all earlier ones."""
    statement = f"SELECT COALESCE(MAX(id), 0) FROM {quoted_outbox(settings)}"
    highest = fetch_row(connection, tuple[int], statement)[0]
    for statement in version_statements(settings, max(now_microseconds(), highest + 1)):
        execute(connection, statement)


def version_statements(settings: Settings, first: int) -> list[str]:
    """Return the statements that make the outbox continue its ids at `first`."""
    return [
        f"ALTER TABLE {quoted_outbox(settings)} AUTO_INCREMENT = {first}",
        f"INSERT INTO {quoted_outbox(settings, STATE_SUFFIX)} (id, first_version) VALUES (1, {first})"
        f" ON DUPLICATE KEY UPDATE first_version = {first}",
    ]


def now_microseconds() -> int:
    """Return the current time in microseconds since 1970, at which versions start."""
    return time.time_ns() // 1000


def find_missing(connection: Connection, settings: Settings) -> list[str]:
    """Return the usual names of Lately's triggers that do not exist or differ from the expected ones.

    Raises BadSource.
    """
    installed = {(trigger.event, trigger.body) for trigger in read_shop_triggers(connection, settings)}
    expected = expected_bodies(connection, settings)
    return [
        trigger_name(settings, event) for event, body in expected.items() if (event, normalize(body)) not in installed
    ]


def is_installed(connection: Connection, settings: Settings) -> bool:
    """Return whether the outbox and its three triggers exist."""
    events = {trigger.event for trigger in read_shop_triggers(connection, settings)}
    return events == set(EVENTS) and read_first_version(connection, settings) is not None


def require_installed(connection: Connection, settings: Settings) -> None:
    """Raise BadSource unless the outbox and its three triggers exist."""
    if not is_installed(connection, settings):
        raise BadSource(
            f"the outbox or a trigger is missing in {settings.mysql_database}, changes are not captured: "
            "run `lately source setup` first"
        )


def read_shop_triggers(connection: Connection, settings: Settings) -> list[InstalledTrigger]:
    """Return Lately's triggers of the shop's table, whatever their names are, sorted by name."""
    return [trigger for trigger in read_triggers(connection, settings) if is_on_shop_table(trigger, settings)]


def is_on_shop_table(trigger: InstalledTrigger, settings: Settings) -> bool:
    """Return whether a trigger is on the shop's table."""
    table = (trigger.schema.lower(), trigger.table.lower())
    return table == (settings.mysql_database.lower(), settings.source_table.lower())
