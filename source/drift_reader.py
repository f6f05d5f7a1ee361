"""Reads the state of the shop's table, the triggers and the outbox in a few statements."""

from __future__ import annotations

import mysql.connector
from mysql.connector import errorcode

from app.settings import OUTBOX, Settings
from source import guarantee, triggers, versions
from source.columns import find_problems, read_columns, read_primary_key, select_columns
from source.drift import Capture
from source.installed_triggers import EVENTS, InstalledTrigger, normalize, read_triggers
from source.mysql import Connection, fetch_first
from source.outbox_table import UNKNOWN_TABLE, read_first_version

#: Errors of a user that may not read the accounts of the server.
_REFUSED = {
    errorcode.ER_TABLEACCESS_DENIED_ERROR,
    errorcode.ER_COLUMNACCESS_DENIED_ERROR,
    errorcode.ER_DBACCESS_DENIED_ERROR,
    errorcode.ER_SPECIFIC_ACCESS_DENIED_ERROR,
}


def read_capture(connection: Connection, settings: Settings, all_tables: bool = True) -> Capture:
    """Read the state of the capture. In watermark mode only the table: there are no triggers.

    Without `all_tables` the triggers of other tables are read only if the shop's table lacks some;
    that takes a few ms also in a database with thousands of tables. Raises mysql.connector.Error.
    """
    columns = read_columns(connection, settings)
    problems = find_problems(connection, columns, settings) if columns else []
    key = [column.name for column in read_primary_key(connection, settings)]
    time_column = columns.get(settings.columns["ordered_at"].lower())
    installed: tuple[InstalledTrigger, ...] = ()
    first_version: int | None = 1
    next_id: int | None = 1
    expected: dict[str, str] = {}
    if settings.source_mode == OUTBOX:
        installed, first_version = _read_triggers(connection, settings, all_tables)
        next_id = _read_next_id(connection, settings)
        if columns and not problems:
            bodies = triggers.build_bodies(settings, select_columns(columns, settings), key)
            expected = {event: normalize(body) for event, body in bodies.items()}
    return Capture(
        table=settings.source_table,
        columns=frozenset(columns),
        column_problems=tuple(problems),
        engine=guarantee.read_engine(connection, settings),
        key=tuple(name.lower() for name in key),
        time_type=None if time_column is None else time_column.type,
        expected=expected,
        triggers=installed,
        first_version=first_version,
        next_id=next_id,
        needs_triggers=settings.source_mode == OUTBOX,
        missing_definers=_find_missing_definers(connection, {trigger.definer for trigger in installed}),
    )


def _read_triggers(
    connection: Connection, settings: Settings, all_tables: bool
) -> tuple[tuple[InstalledTrigger, ...], int | None]:
    """Return the triggers and the first version of one moment.

    `setup` changes both while it has locked the outbox, which delays a read of the version only.
    """
    after = read_first_version(connection, settings)
    while True:
        before = after
        installed = tuple(read_triggers(connection, settings, table=settings.source_table))
        if all_tables or len(installed) != len(EVENTS):
            installed = tuple(read_triggers(connection, settings))
        after = read_first_version(connection, settings)
        if before == after:
            return installed, after


def _read_next_id(connection: Connection, settings: Settings) -> int | None:
    try:
        return versions.read_next_id(connection, settings)
    except mysql.connector.Error as exc:
        if exc.errno in UNKNOWN_TABLE:
            return None
        raise


def _find_missing_definers(connection: Connection, definers: set[str]) -> frozenset[str]:
    """Return the definers without an account; none if this user may not read the accounts."""
    missing = set()
    for definer in definers:
        user, at, host = definer.rpartition("@")
        if not at:
            continue  # a role of MariaDB
        try:
            row = fetch_first(
                connection, tuple[int], "SELECT 1 FROM mysql.user WHERE user = %s AND host = %s", (user, host)
            )
        except mysql.connector.Error as exc:
            if exc.errno in _REFUSED:
                return frozenset()
            raise
        if row is None:
            missing.add(definer)
    return frozenset(missing)
