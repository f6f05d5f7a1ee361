"""The rows of the outbox: put in by triggers and snapshots, read and deleted by the running source."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import mysql.connector

from app.config import Settings
from app.errors import BadSource
from app.models import SNAPSHOT
from app.source.columns import Columns, as_text, payload, quoted
from app.source.mysql import Connection, connect
from app.source.triggers import first_version, refused, state_table

SNAPSHOT_ROWS = 500

# Ids start at the microseconds since 1970; the smallest of these that can be is of the year 2001.
_SMALLEST_ID = 10**15


@dataclass(frozen=True)
class Row:
    """One change to publish, as the trigger wrote it; `id` is its place in the outbox."""

    id: int
    version: int
    event_id: str
    type: str
    payload: str
    traceparent: str | None
    created_at: str


def snapshot(connection: Connection, columns: Columns, settings: Settings, since: str | None) -> int:
    """Put the rows ordered at `since` (UTC, "YYYY-MM-DD HH:MM:SS.ffffff") or later, or all, into the outbox.

    Returns their number. All have the version below the outbox's first: a change that the triggers saw is newer than
    any snapshot, whenever the snapshot read the row; a change they did not see was before them. The shop's table is
    read without locks in one consistent read, and written to the outbox in small transactions, so the shop never
    waits. Raises BadSource.
    """
    version = first_version(connection, settings)
    if version is None:
        raise BadSource(f"there is no outbox {settings.source_outbox}: run `lately source setup` first")
    insert = (
        f"INSERT INTO {quoted(settings.source_outbox)} (version, event_id, aggregateid, type, payload)"
        f" VALUES ({version - 1}, UUID(), %s, '{SNAPSHOT}', %s)"
    )
    count = 0
    try:
        with closing(connect(settings)) as reader, reader.cursor() as rows, connection.cursor() as cursor:
            rows.execute("SET @lately_since = %s", (since,))
            rows.execute(_select(columns, settings, since))
            while chunk := rows.fetchmany(SNAPSHOT_ROWS):
                cursor.executemany(insert, chunk)
                count += len(chunk)
            cursor.execute(f"UPDATE {state_table(settings)} SET snapshot_taken = TRUE")
    except mysql.connector.Error as exc:
        raise refused("the snapshot could not be taken", exc) from None
    return count


def _select(columns: Columns, settings: Settings, since: str | None) -> str:
    table = quoted(settings.source_table)
    order_id, ordered_at = (f"{table}.{quoted(columns[name][0])}" for name in ("order_id", "ordered_at"))
    # A variable, because the % signs of the payload are not placeholders.
    where = f" WHERE {ordered_at} >= CAST(@lately_since AS DATETIME(6))" if since else ""
    return f"SELECT LEFT({as_text(order_id)}, 255), {payload(columns, table)} FROM {table}{where}"


def read(connection: Connection, settings: Settings) -> list[Row]:
    """The oldest rows of the outbox, at most `source_batch_rows`, in the order of their ids.

    Raises BadSource when the ids began anew, because newer changes would then look older than those before.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, COALESCE(version, id), event_id, type, payload, traceparent,"
            " DATE_FORMAT(created_at, '%Y-%m-%dT%H:%i:%s.%fZ')"
            f" FROM {quoted(settings.source_outbox)} ORDER BY id LIMIT {settings.source_batch_rows}"
        )
        rows = [Row(*values) for values in cursor.fetchall()]
    if rows and rows[0].id < _SMALLEST_ID:
        outbox = settings.source_outbox
        raise BadSource(
            f"the ids of {outbox} began anew (was it truncated?): "
            f"DROP TABLE {outbox}, {outbox}_state; then `lately source setup --all`"
        )
    return rows


def delete(connection: Connection, settings: Settings, rows: list[Row]) -> None:
    """Remove `rows`, which Kafka has acknowledged."""
    if not rows:
        return
    outbox, marks = quoted(settings.source_outbox), ", ".join(["%s"] * len(rows))
    with connection.cursor() as cursor:
        # Without the hint the server may scan the table, and wait for every row that the shop has not committed yet.
        cursor.execute(
            f"DELETE {outbox} FROM {outbox} FORCE INDEX (PRIMARY) WHERE id IN ({marks})", [row.id for row in rows]
        )
