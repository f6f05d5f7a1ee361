"""Versions of a database that is older than the published changes: begin them anew above these.

The ids of the outbox are the versions of the events. A database that was restored from a backup
assigns ids again that were published before, and workers ignore changes with smaller versions than
those that they have. `LeaderStatus.highest_version` is the highest version that was published; the
next id must be above it.
"""

from __future__ import annotations

import re
from contextlib import closing

import mysql.connector

from app.settings import Settings
from source import triggers
from source.mysql import Connection, connect, execute, fetch_row, to_text
from source.outbox_table import STATE_SUFFIX, quoted_outbox
from source.server_errors import explain

#: Versions are microseconds since 1970; greater ones were not assigned by the outbox.
MAX_VERSION = 10**17

_NEXT_ID = re.compile(r"\bAUTO_INCREMENT=(\d+)")


def read_next_id(connection: Connection, settings: Settings) -> int:
    """Return the id that the next row of the outbox gets. Raises mysql.connector.Error."""
    return read_auto_increment(connection, quoted_outbox(settings)) or 1


def read_auto_increment(connection: Connection, quoted_table: str) -> int | None:
    """Return the next AUTO_INCREMENT of a table; None for a table without such a column.

    Not from information_schema, which MySQL answers from a cache. Raises mysql.connector.Error.
    """
    row = fetch_row(connection, tuple[str | bytes, str | bytes], f"SHOW CREATE TABLE {quoted_table}")
    columns, _, options = to_text(row[1]).rpartition("\n)")
    match = _NEXT_ID.search(options)
    if match:
        return int(match[1])
    return 1 if " AUTO_INCREMENT" in columns else None


def restart_versions_above(settings: Settings, highest: int) -> int:
    """Begin versions anew above `highest`, the highest published version; return the first one.

    Rows in the outbox get new versions in their order, below the first one, so that their events
    replace the published ones. The order of the steps makes it safe to repeat them after a crash:

    1. Wait for the end of all transactions that have written to the outbox, and block new ones.
    2. Give the rows of the outbox new versions.
    3. Store the first version, which is above them.
    4. Set the next id to the first version: until then, `read_next_id` shows that it is too small.

    Raises BadSource when the user lacks a privilege, DatabaseAway.
    """
    outbox, state = quoted_outbox(settings), quoted_outbox(settings, STATE_SUFFIX)
    with closing(connect(settings)) as connection:
        try:
            # 1.
            execute(connection, f"LOCK TABLES {outbox} WRITE, {outbox} AS waiting WRITE, {state} WRITE")
            # A row that no trigger wrote may have any id.
            largest = max(triggers.now_microseconds(), highest) + triggers.MAX_AHEAD
            version = "GREATEST(id, COALESCE(version, id))"
            rows, highest_row = fetch_row(
                connection,
                tuple[int, int],
                f"SELECT COUNT(*), COALESCE(MAX(IF({version} <= {largest}, {version}, 0)), 0) FROM {outbox}",
            )
            start = max(triggers.now_microseconds(), highest + 1, highest_row + 1)
            # 2.
            execute(
                connection,
                f"UPDATE {outbox} JOIN (SELECT id, ROW_NUMBER() OVER (ORDER BY id) AS number FROM {outbox} AS waiting)"
                f" AS numbered USING (id) SET {outbox}.version = {start} + numbered.number",
            )
            # 3. and 4. A snapshot has the version below the first one, which no row may have.
            first = start + rows + 2
            alter, store = triggers.version_statements(settings, first)
            execute(connection, store)
            execute(connection, alter)
            execute(connection, "UNLOCK TABLES")
        except mysql.connector.Error as exc:
            raise explain("versions could not be begun anew", exc, settings) from None
    return first
