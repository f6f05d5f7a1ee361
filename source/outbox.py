"""Capture by outbox: what the triggers wrote is read in the order of its ids, and deleted once it is published.

There is no position to lose: what is in the outbox is what is still to be published
(docs/decisions/001-trigger-outbox.md).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from app.errors import BadSource
from app.settings import Settings
from source import triggers
from source.columns import quoted
from source.mysql import Connection, server_time

# Ids start at the microseconds since 1970; the smallest of these that can be is of the year 2001.
_SMALLEST_ID = 10**15


@dataclass(frozen=True)
class Row:
    """One change to publish; `id` is its place in the outbox, or in the shop's table where there is none."""

    id: int
    version: int
    event_id: str
    type: str
    payload: str
    traceparent: str | None
    created_at: str


class Outbox:
    """The outbox as a capture: `read` the next changes, publish them, say that they are `done`."""

    #: Which changes it cannot see.
    unseen: tuple[str, ...] = ()

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection, self._settings = connection, settings
        #: All that was committed before this moment (microseconds, the server's clock) is published.
        self.as_of: int | None = None
        #: When the oldest change that is still to be published was made (microseconds), None: there is none.
        self.oldest: int | None = None
        #: A moment, and the highest id that was to be seen then; it is as_of once that id is published.
        self._mark: tuple[int, int] | None = None

    def check(self) -> None:
        """Raise BadSource unless everything that captures changes is in place."""
        triggers.require(self._connection, self._settings)

    def read(self) -> list[Row]:
        """The oldest rows of the outbox, at most `source_batch_rows`, in the order of their ids.

        Raises BadSource when the ids began anew, because newer changes would then look older than those before.
        """
        if self._mark is None:
            self._mark = self._now_and_highest()
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT id, COALESCE(version, id), event_id, type, payload, traceparent,"
                " DATE_FORMAT(created_at, '%Y-%m-%dT%H:%i:%S.%fZ'),"
                " CAST(UNIX_TIMESTAMP(created_at) * 1000000 AS UNSIGNED)"
                f" FROM {quoted(self._settings.source_outbox)} ORDER BY id LIMIT {self._settings.source_batch_rows}"
            )
            found = cursor.fetchall()
        rows = [Row(*values[:7]) for values in found]
        if rows and rows[0].id < _SMALLEST_ID:
            outbox = self._settings.source_outbox
            raise BadSource(
                f"the ids of {outbox} began anew (was it truncated?): "
                f"DROP TABLE {outbox}, {outbox}_state; then `lately source setup`"
            )
        self.oldest = found[0][7] if found else None
        if not rows or rows[0].id > self._mark[1]:
            self.as_of, self._mark = self._mark[0], None
        return rows

    def done(self, rows: list[Row]) -> None:
        """Delete `rows`, which Kafka has acknowledged."""
        if not rows:
            return
        # Each row by its key: a scan waits for every row that is not committed yet. Without the two hints MariaDB 11
        # scans a small outbox; and for a plain list of ids MariaDB before 11.0 scans any, whatever the hint.
        with self._connection.cursor() as cursor:
            cursor.execute(
                "DELETE waiting FROM JSON_TABLE(%s, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) AS published"
                f" STRAIGHT_JOIN {quoted(self._settings.source_outbox)} AS waiting FORCE INDEX (PRIMARY)"
                " ON waiting.id = published.id",
                (json.dumps([row.id for row in rows]),),
            )

    def position(self) -> None:
        """Nothing has to be remembered: the outbox itself is the position."""

    def _now_and_highest(self) -> tuple[int, int]:
        # The moment first: what is committed after it may or may not be seen.
        now = server_time(self._connection)
        with self._connection.cursor() as cursor:
            cursor.execute(f"SELECT COALESCE(MAX(id), 0) FROM {quoted(self._settings.source_outbox)}")
            return now, cursor.fetchone()[0]
