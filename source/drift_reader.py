"""Reads the state of the shop's table, the triggers and the outbox in a few statements."""

from __future__ import annotations

import mysql.connector
from mysql.connector import errorcode

from app.errors import BadSource
from app.settings import OUTBOX, Settings
from source import guarantee, triggers, versions
from source.columns import find_column_problems, read_primary_key
from source.drift import Capture
from source.installed_triggers import EVENTS, InstalledTrigger, normalize, read_triggers
from source.mysql import Connection, fetch_all, fetch_first, to_text
from source.outbox_table import UNKNOWN_TABLE

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
    types = _read_types(connection, settings)
    installed: tuple[InstalledTrigger, ...] = ()
    first_version: int | None = 1
    next_id: int | None = 1
    expected: dict[str, str] = {}
    if settings.source_mode == OUTBOX:
        installed = tuple(read_triggers(connection, settings, table=settings.source_table))
        if all_tables or len(installed) != len(EVENTS):
            installed = tuple(read_triggers(connection, settings))
        first_version = triggers.read_first_version(connection, settings)
        next_id = _read_next_id(connection, settings)
        expected = _read_expected(connection, settings)
    return Capture(
        table=settings.source_table,
        columns=frozenset(types),
        column_problems=tuple(find_column_problems(connection, settings)) if types else (),
        engine=guarantee.read_engine(connection, settings),
        key=tuple(column.name.lower() for column in read_primary_key(connection, settings)),
        time_type=types.get(settings.columns["ordered_at"].lower()),
        expected=expected,
        triggers=installed,
        first_version=first_version,
        next_id=next_id,
        needs_triggers=settings.source_mode == OUTBOX,
        missing_definers=_find_missing_definers(connection, {trigger.definer for trigger in installed}),
    )


def _read_next_id(connection: Connection, settings: Settings) -> int | None:
    try:
        return versions.read_next_id(connection, settings)
    except mysql.connector.Error as exc:
        if exc.errno in UNKNOWN_TABLE:
            return None
        raise


def _read_types(connection: Connection, settings: Settings) -> dict[str, str]:
    """Return column -> data type of the shop's table, both in lower case."""
    rows = fetch_all(
        connection,
        tuple[str | bytes, str | bytes],
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
        (settings.mysql_database, settings.source_table),
    )
    return {to_text(name).lower(): to_text(data_type).lower() for name, data_type in rows}


def _read_expected(connection: Connection, settings: Settings) -> dict[str, str]:
    try:
        bodies = triggers.expected_bodies(connection, settings)
    except BadSource:
        return {}
    return {event: normalize(body) for event, body in bodies.items()}


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
