"""Capture by outbox: read rows that the triggers wrote, and delete them when published.

There is no position that could be lost: the outbox contains exactly the changes that are not
published yet (docs/decisions/001-trigger-outbox.md).
"""

from __future__ import annotations

import json
import logging

from app.errors import DatabaseAway
from app.settings import Settings
from source import lock_table, outbox_ids, triggers, versions
from source.mysql import Connection, fetch_row, read_server_time
from source.outbox_ids import LARGEST_ID
from source.outbox_row import OutboxRow, select_rows
from source.outbox_table import quoted_outbox

log = logging.getLogger(__name__)


class Outbox:
    """Reads the outbox: call `read_rows`, publish the rows, then call `mark_published`."""

    #: Kinds of changes that this capture cannot see.
    unseen: tuple[str, ...] = ()

    def __init__(self, connection: Connection, settings: Settings, lock_connection_id: int | None = None) -> None:
        self._connection, self._settings = connection, settings
        #: Rows are deleted only as long as this connection is the newest holder of the leader's
        #: lock; None: always.
        self._lock_connection_id = lock_connection_id
        #: All changes committed before this time (microseconds, the server's clock) are published.
        self.as_of: int | None = None
        #: Time of the oldest change that is not published yet (microseconds); None: all are
        #: published.
        self.oldest: int | None = None
        #: A time and the highest id visible at that time: `as_of` becomes the time when the id is
        #: published.
        self._next_as_of: tuple[int, int] | None = None
        #: Id -> time (microseconds) of the rows read last that have their id as version.
        self._created_at: dict[int, int] = {}
        #: The highest version that was given to a row whose id is ahead of the time.
        self._last_version = 0
        self._logged_problem: str | None = None

    def require_installed(self) -> None:
        """Raise BadSource unless the outbox and all triggers exist."""
        triggers.require_installed(self._connection, self._settings)

    def read_rows(self) -> list[OutboxRow]:
        """Return the oldest rows of the outbox by id, at most `source_batch_rows`."""
        if self._next_as_of is None:
            self._next_as_of = self._read_time_and_highest_id()
        condition = f"WHERE id < {LARGEST_ID} ORDER BY id LIMIT {self._settings.source_batch_rows}"
        values = select_rows(self._connection, self._settings, condition)
        rows = [row for row, _ in values]
        if not outbox_ids.are_ordinary(rows):
            rows = self._correct_versions(rows)
        self._created_at = {row.id: time for row, (_, time) in zip(rows, values, strict=True) if row.id == row.version}
        self.oldest = values[0][1] if values else None
        if not rows or rows[0].id > self._next_as_of[1]:
            self.as_of, self._next_as_of = self._next_as_of[0], None
        return rows

    def _correct_versions(self, rows: list[OutboxRow]) -> list[OutboxRow]:
        """Find rows that no trigger wrote, and give no row a version that is ahead of the time."""
        connection, settings = self._connection, self._settings
        largest = outbox_ids.largest_ordinary_id(connection, settings)
        corrected = outbox_ids.correct_versions(
            rows,
            largest=largest,
            next_id=versions.read_next_id(connection, settings),
            first_version=max(read_server_time(connection), self._last_version + 1),
            order_ids=outbox_ids.read_order_ids(connection, settings, largest, len(rows)),
        )
        self._last_version = max(row.version for row in corrected)
        self._log_problem()
        return corrected

    def _log_problem(self) -> None:
        """Log once that a row has moved the next id."""
        problem = outbox_ids.find_problem(self._connection, self._settings)
        if problem is not None and problem != self._logged_problem:
            log.error("%s: run `lately source setup`, which corrects it", problem)
        self._logged_problem = problem

    def has_reused_ids(self, highest: int, assigned_before: tuple[int, int] | None) -> bool:
        """Return whether ids of the last rows read were assigned before, to published changes.

        `highest` is the highest published id. `assigned_before` is an id and a time (microseconds,
        the server's clock) at which all ids up to it had been assigned. The time of a row is not
        later than the assignment of its id: a transaction that commits late has a small id and an
        early time. Raises mysql.connector.Error.
        """
        if any(row_id < outbox_ids.SMALLEST_ID for row_id in self._created_at):
            return True
        marked, time = assigned_before or (0, 0)
        low = {row_id: created_at for row_id, created_at in self._created_at.items() if row_id <= highest}
        if any(row_id <= marked and created_at > time for row_id, created_at in low.items()):
            return True
        # A newer row may have a small id because its transaction has just committed late.
        is_possible = any(created_at > time for created_at in low.values())
        return is_possible and versions.read_next_id(self._connection, self._settings) <= highest

    def mark_published(self, rows: list[OutboxRow]) -> None:
        """Delete `rows`, which Kafka has acknowledged.

        Raises DatabaseAway when this source is not the leader any more: the rows are published
        again by the next leader.
        """
        if not rows:
            return
        # Each row is deleted by its key, because a scan waits for all uncommitted rows. Without the
        # two hints MariaDB 11 scans a small outbox. For a plain list of ids MariaDB before 11.0
        # scans the outbox in spite of the hints.
        condition, lock_id = "", self._lock_connection_id
        if lock_id is not None:
            condition = f" WHERE {lock_table.holder_condition(self._settings, lock_table.LEADER, lock_id)}"
        with self._connection.cursor() as cursor:
            cursor.execute(
                "DELETE waiting FROM JSON_TABLE(%s, '$[*]' COLUMNS (id BIGINT PATH '$')) AS published"
                f" STRAIGHT_JOIN {quoted_outbox(self._settings)} AS waiting FORCE INDEX (PRIMARY)"
                f" ON waiting.id = published.id{condition}",
                (json.dumps([row.id for row in rows]),),
            )
            if lock_id is not None and not cursor.rowcount:
                raise DatabaseAway("another process has taken the leader's lock, or has deleted the rows: try again")

    def _read_time_and_highest_id(self) -> tuple[int, int]:
        # The time first: changes committed after it may be visible or not.
        now = read_server_time(self._connection)
        statement = f"SELECT COALESCE(MAX(id), 0) FROM {quoted_outbox(self._settings)}"
        (highest,) = fetch_row(self._connection, tuple[int], statement)
        if highest == LARGEST_ID:
            self._log_problem()
            (highest,) = fetch_row(self._connection, tuple[int], f"{statement} WHERE id < {LARGEST_ID}")
        return now, highest
