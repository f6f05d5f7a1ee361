"""Capture by watermark, for a database user that may only read: rows of the shop's table in the order of their ids.

Ids are taken at INSERT and seen at COMMIT, so a row can appear below one that was seen before. `low` is the watermark:
up to it nothing can appear any more. Above it, every id that was not seen is looked for again and again, and the
watermark passes it only when every transaction that could still hold it has ended
(docs/decisions/006-watermark-with-proof.md).
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import mysql.connector

from app.control.source_state import WatermarkState
from app.settings import Settings
from domain.events import PLACED
from domain.values import rfc3339
from source import transactions
from source.columns import payload_expression, quote, read_shop_columns, traceparent_expression
from source.mysql import Connection, read_server_time, to_text
from source.outbox import OutboxRow

log = logging.getLogger(__name__)

#: The JSON of a row, and the trace in which it was written.
_Said = tuple[str, str | None]

#: Missing ids asked for in one statement; more are asked for in turn.
GAPS_AT_ONCE = 200
#: Pause between two epochs, and between two looks at the open transactions.
EPOCH_EVERY_S, LOOK_EVERY_S = 1.0, 0.3
#: A transaction that took an id shows among the open ones a moment later; twice what the server buffers that list for.
REGISTERED_AFTER_S = 0.25


@dataclass
class Epoch:
    """An attempt to raise the watermark to `mark`: first the open transactions are noted, then their ends awaited."""

    mark: int
    begun: float
    writers: frozenset[transactions.WritingTransaction] | None = None
    looked: float = 0.0
    ended: bool = False


class Watermark:
    """The shop's table as a capture: `read` the next rows, publish them, say that they are `done`."""

    unseen = ("changed", "removed")

    def __init__(self, connection: Connection, settings: Settings, state: WatermarkState, proven: bool) -> None:
        self._connection, self._settings = connection, settings
        #: Whether the ends of transactions can be seen.
        self.proven = proven
        self._columns = read_shop_columns(connection, settings)
        table = quote(settings.source_table)
        self._select = (
            f"SELECT {quote(settings.source_id)}, {payload_expression(self._columns, table)},"
            f" {traceparent_expression(settings, table, False)} FROM {table}"
        )
        self._table, self._low, self._version = state.table, state.low, state.version
        #: The highest id that is published.
        self._high = state.low
        #: Ids between the watermark and `_high` that were not seen yet: first and last of each range, ascending.
        self._gaps: list[tuple[int, int]] = []
        self._next_gap = 0
        self._epoch: Epoch | None = None
        self._epoch_ended = 0.0
        self._looked_everywhere = False
        #: When the round through all gaps began (microseconds), and whether the tail was read to its end in it.
        self._round: int | None = None
        self._to_the_end = False
        self.as_of: int | None = None
        self.oldest: int | None = None

    @property
    def age_s(self) -> float:
        """For how long the watermark has been waiting for transactions to end."""
        return time.monotonic() - self._epoch.begun if self._epoch is not None else 0.0

    def require_installed(self) -> None:
        """Raise BadSource when the table or a column is gone."""
        read_shop_columns(self._connection, self._settings)

    def resume_state(self) -> WatermarkState:
        """What has to be remembered to go on from here after a restart."""
        return WatermarkState(table=self._table, low=self._low, version=self._version)

    def read_rows(self) -> list[OutboxRow]:
        """Rows that are not published yet: those above the highest id, and those that appeared below it."""
        if self._round is None:
            self._round, self._to_the_end = read_server_time(self._connection), False
        limit = self._settings.source_batch_rows
        tail = self._rows(f"id > {self._high}", limit)
        self._to_the_end = self._to_the_end or len(tail) < limit
        late = self._last_look(limit) if self._epoch_over() else self._late(limit)
        return self._as_changes(sorted({**dict(late), **dict(tail)}.items()))

    def mark_published(self, rows: list[OutboxRow]) -> None:
        """Note that `rows` are published; raise the watermark where the epoch allows it."""
        for row in rows:
            self._note(row.id)
        if self._to_the_end and self._looked_everywhere:
            self.as_of, self._round = self._round, None
        self.oldest = self.as_of if rows else None
        epoch = self._epoch
        if epoch is not None and epoch.ended:
            self._low = epoch.mark
            self._gaps = [(max(first, self._low + 1), last) for first, last in self._gaps if last > self._low]
            self._next_gap = 0
            self._epoch, self._epoch_ended = None, time.monotonic()

    def _epoch_over(self) -> bool:
        """Go on with the epoch; whether every transaction that could hold an id up to its mark has ended.

        1. The mark is the highest id seen: every id up to it was taken before.
        2. A moment later, whoever took one shows among the open transactions; note all that write.
        3. When none of those is open any more, what they wrote can be seen, or never will be.
        """
        now = time.monotonic()
        if self._epoch is None:
            # 1.
            if self._high > self._low and now - self._epoch_ended >= EPOCH_EVERY_S:
                self._epoch = Epoch(self._high, now)
            return False
        epoch = self._epoch
        if not self.proven:
            return now - epoch.begun >= self._settings.source_settle_s
        if now - epoch.begun < REGISTERED_AFTER_S or now - epoch.looked < LOOK_EVERY_S:
            return False
        epoch.looked = now
        try:
            writers = transactions.read_writing_transactions(self._settings)
        except (transactions.TransactionListUnavailable, mysql.connector.Error) as exc:
            log.warning(
                "the open transactions cannot be seen (%s): the watermark waits %d s now, and not for their ends",
                exc, self._settings.source_settle_s,
            )  # fmt: skip
            self.proven = False
            return False
        if epoch.writers is None:
            # 2.
            epoch.writers = writers
        else:
            # 3.
            epoch.writers &= writers
        return not epoch.writers

    def _last_look(self, limit: int) -> list[tuple[int, str]]:
        """Rows in all gaps, read after the transactions have ended; the epoch ends once these are published."""
        found: list[tuple[int, str]] = []
        for start in range(0, len(self._gaps), GAPS_AT_ONCE):
            found += self._in_gaps(self._gaps[start : start + GAPS_AT_ONCE], limit)
            if len(found) >= limit:
                self._looked_everywhere = False
                return found
        self._looked_everywhere = self._epoch.ended = True
        return found

    def _late(self, limit: int) -> list[tuple[int, str]]:
        """Rows in the gaps; of many gaps only in the next ones."""
        found = self._in_gaps(self._gaps[self._next_gap : self._next_gap + GAPS_AT_ONCE], limit)
        if len(found) < limit:
            self._next_gap += GAPS_AT_ONCE
        self._looked_everywhere = self._next_gap >= len(self._gaps)
        if self._looked_everywhere:
            self._next_gap = 0
        return found

    def _in_gaps(self, gaps: list[tuple[int, int]], limit: int) -> list[tuple[int, str]]:
        if not gaps:
            return []
        return self._rows(" OR ".join(f"id BETWEEN {first} AND {last}" for first, last in gaps), limit)

    def _rows(self, condition: str, limit: int) -> list[tuple[int, _Said]]:
        condition = condition.replace("id", quote(self._settings.source_id))
        with self._connection.cursor() as cursor:
            cursor.execute(
                f"{self._select} WHERE {condition} ORDER BY {quote(self._settings.source_id)} LIMIT {limit}"
            )
            return [(row_id, (data, trace)) for row_id, data, trace in cursor.fetchall()]

    def _as_changes(self, found: list[tuple[int, _Said]]) -> list[OutboxRow]:
        if not found:
            return []
        # The clock is read after the rows: whatever a later read sees gets a greater version.
        now = read_server_time(self._connection)
        at = rfc3339(now)
        first = max(now, self._version + 1)
        self._version = first + len(found) - 1
        return [
            OutboxRow(row_id, first + number, str(uuid.uuid4()), PLACED, to_text(data), trace, at)
            for number, (row_id, (data, trace)) in enumerate(found)
        ]

    def _note(self, row_id: int) -> None:
        if row_id > self._high:
            if row_id > self._high + 1:
                self._gaps.append((self._high + 1, row_id - 1))
            self._high = row_id
            return
        number = bisect_right(self._gaps, (row_id, math.inf)) - 1
        if number >= 0 and self._gaps[number][1] >= row_id:
            first, last = self._gaps[number]
            parts = ((first, row_id - 1), (row_id + 1, last))
            self._gaps[number : number + 1] = [part for part in parts if part[0] <= part[1]]


def find_start(connection: Connection, settings: Settings, proven: bool, say: Callable[[str], None]) -> WatermarkState:
    """Where a watermark can begin: an id below which, from now on, a snapshot sees everything.

    Waits until the transactions that are open now have ended, `source_settle_s` where that cannot be seen.
    Raises BadSource, ServerAway.
    """
    read_shop_columns(connection, settings)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COALESCE(MAX({quote(settings.source_id)}), 0) FROM {quote(settings.source_table)}")
        # Of an unsigned column this is a DECIMAL.
        low = int(cursor.fetchone()[0])
    if not proven:
        say(f"waiting {settings.source_settle_s} s (LATELY_SOURCE_SETTLE_S) for transactions that may be open")
        time.sleep(settings.source_settle_s)
    else:
        time.sleep(REGISTERED_AFTER_S)
        writers = transactions.read_writing_transactions(settings)
        if writers:
            say(f"waiting for {len(writers)} open transactions to end")
        while writers:
            time.sleep(LOOK_EVERY_S)
            writers &= transactions.read_writing_transactions(settings)
    return WatermarkState(table=f"{settings.mysql_database}.{settings.source_table}", low=low, version=0)
