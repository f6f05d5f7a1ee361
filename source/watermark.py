"""Capture by watermark, for a database user that may only read: new rows of the shop's table.

A row takes its id at INSERT and becomes visible at COMMIT, so a row can appear below an id that was
read before. The watermark `low` is an id up to which no row can appear any more. Above it, the
missing ids (gaps) are read again and again. The watermark passes a gap only after all transactions
that could still insert it have ended (docs/decisions/006-watermark-with-proof.md).
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import mysql.connector

from app.control.source_state import WatermarkState
from app.settings import Settings
from domain.events import PLACED
from domain.values import rfc3339
from source import transactions, versions
from source.columns import payload_expression, read_shop_columns, traceparent_expression
from source.mysql import Connection, fetch_all, fetch_row, read_server_time, to_text
from source.outbox_row import OutboxRow
from source.quoting import quote

log = logging.getLogger(__name__)

#: Id, JSON and traceparent of a row of the shop's table.
_ShopRow = tuple[int, str | bytes, str | None]

#: Maximum number of gaps in one statement.
GAPS_PER_STATEMENT = 200
#: Pause between two epochs, and between two reads of the open transactions.
EPOCH_PAUSE_S, TRANSACTION_POLL_S = 1.0, 0.3
#: A transaction that took an id is listed after this delay: twice the refresh interval of the
#: server's list.
REGISTERED_AFTER_S = 0.25


@dataclass
class Epoch:
    """An attempt to raise the watermark to `mark`, which waits for open transactions to end."""

    mark: int
    #: Times of the monotonic clock.
    began: float
    transactions: frozenset[transactions.WritingTransaction] | None = None
    polled_at: float = 0.0
    is_finished: bool = False


class Watermark:
    """Reads the shop's table: call `read_rows`, publish the rows, then call `mark_published`."""

    unseen = ("changed", "removed")

    def __init__(self, connection: Connection, settings: Settings, state: WatermarkState, proven: bool) -> None:
        self._connection, self._settings = connection, settings
        #: Whether the open transactions can be listed.
        self.proven = proven
        self._columns = read_shop_columns(connection, settings)
        table = quote(settings.source_table)
        self._select = (
            f"SELECT {quote(settings.source_id)}, {payload_expression(self._columns, table)},"
            f" {traceparent_expression(settings, table, False)} FROM {table}"
        )
        self._table, self._low, self._version = state.table, state.low, state.version
        #: The highest published id.
        self._high = state.low
        #: Missing ids between the watermark and `_high`: first and last id of each range,
        #: ascending.
        self._gaps: list[tuple[int, int]] = []
        self._next_gap = 0
        self._epoch: Epoch | None = None
        self._last_epoch_ended_at = 0.0
        self._has_read_all_gaps = False
        #: Start of the current round through all gaps (microseconds, the server's clock), and
        #: whether the round has also read all rows above `_high`.
        self._round_began: int | None = None
        self._has_read_tail = False
        self.as_of: int | None = None
        self.oldest: int | None = None

    @property
    def age_s(self) -> float:
        """How long the watermark has been waiting for the ends of transactions, in seconds."""
        return time.monotonic() - self._epoch.began if self._epoch is not None else 0.0

    def resume_state(self) -> WatermarkState:
        """Return the state from which a capture can continue after a restart."""
        return WatermarkState(table=self._table, low=self._low, version=self._version)

    def begin_anew_if_restored(self) -> bool:
        """Follow the table from its next id if it would assign ids again that were published.

        It would after a restore from a backup. Returns whether it does; rows that have such ids
        already are not published. Raises mysql.connector.Error.
        """
        next_id = versions.read_auto_increment(self._connection, quote(self._settings.source_table))
        if next_id is None or next_id > self._high:
            return False
        self._low = self._high = next_id - 1
        self._gaps, self._next_gap, self._epoch, self._round_began = [], 0, None, None
        return True

    def read_rows(self) -> list[OutboxRow]:
        """Return unpublished rows: those above the highest id, and those in the gaps."""
        if self._round_began is None:
            self._round_began, self._has_read_tail = read_server_time(self._connection), False
        limit = self._settings.source_batch_rows
        tail = self._read_rows(f"id > {self._high}", limit)
        self._has_read_tail = self._has_read_tail or len(tail) < limit
        late = self._read_all_gaps(limit) if self._advance_epoch() else self._read_next_gaps(limit)
        return self._build_rows({row[0]: row for row in (*late, *tail)})

    def mark_published(self, rows: list[OutboxRow]) -> None:
        """Remove published ids from the gaps; raise the watermark when the epoch is finished."""
        for row in rows:
            self._remove_from_gaps(row.id)
        if self._has_read_tail and self._has_read_all_gaps:
            self.as_of, self._round_began = self._round_began, None
        self.oldest = self.as_of if rows else None
        epoch = self._epoch
        if epoch is not None and epoch.is_finished:
            self._low = epoch.mark
            self._gaps = [(max(first, self._low + 1), last) for first, last in self._gaps if last > self._low]
            self._next_gap = 0
            self._epoch, self._last_epoch_ended_at = None, time.monotonic()

    def _advance_epoch(self) -> bool:
        """Continue the epoch; return whether all transactions with ids up to its mark have ended.

        1. The mark is the highest id read: all ids up to it have been taken.
        2. After a delay, the transactions that took them are listed: note all transactions that
           write.
        3. When none of these is open any more, their rows are visible or will never exist.
        """
        now = time.monotonic()
        if self._epoch is None:
            # 1.
            if self._high > self._low and now - self._last_epoch_ended_at >= EPOCH_PAUSE_S:
                self._epoch = Epoch(self._high, now)
            return False
        epoch = self._epoch
        if not self.proven:
            return now - epoch.began >= self._settings.source_settle_s
        if now - epoch.began < REGISTERED_AFTER_S or now - epoch.polled_at < TRANSACTION_POLL_S:
            return False
        epoch.polled_at = now
        try:
            writing = transactions.read_writing_transactions(self._settings)
        except (transactions.TransactionListUnavailable, mysql.connector.Error) as exc:
            log.warning(
                "the open transactions cannot be listed (%s): from now on the watermark waits %d s instead of for "
                "their ends",
                exc, self._settings.source_settle_s,
            )  # fmt: skip
            self.proven = False
            return False
        if epoch.transactions is None:
            # 2.
            epoch.transactions = writing
        else:
            # 3.
            epoch.transactions &= writing
        return not epoch.transactions

    def _read_all_gaps(self, limit: int) -> list[_ShopRow]:
        """Return rows in all gaps, read after the transactions have ended.

        The epoch is finished unless the limit is reached; `mark_published` then raises the
        watermark.
        """
        rows: list[_ShopRow] = []
        for start in range(0, len(self._gaps), GAPS_PER_STATEMENT):
            rows += self._read_gaps(self._gaps[start : start + GAPS_PER_STATEMENT], limit)
            if len(rows) >= limit:
                self._has_read_all_gaps = False
                return rows
        self._has_read_all_gaps = True
        if self._epoch is not None:
            self._epoch.is_finished = True
        return rows

    def _read_next_gaps(self, limit: int) -> list[_ShopRow]:
        """Return rows in the next gaps, as many as fit in one statement."""
        rows = self._read_gaps(self._gaps[self._next_gap : self._next_gap + GAPS_PER_STATEMENT], limit)
        if len(rows) < limit:
            self._next_gap += GAPS_PER_STATEMENT
        self._has_read_all_gaps = self._next_gap >= len(self._gaps)
        if self._has_read_all_gaps:
            self._next_gap = 0
        return rows

    def _read_gaps(self, gaps: list[tuple[int, int]], limit: int) -> list[_ShopRow]:
        if not gaps:
            return []
        return self._read_rows(" OR ".join(f"id BETWEEN {first} AND {last}" for first, last in gaps), limit)

    def _read_rows(self, condition: str, limit: int) -> list[_ShopRow]:
        condition = condition.replace("id", quote(self._settings.source_id))
        return fetch_all(
            self._connection,
            tuple[int, str | bytes, str | None],
            f"{self._select} WHERE {condition} ORDER BY {quote(self._settings.source_id)} LIMIT {limit}",
        )

    def _build_rows(self, rows: dict[int, _ShopRow]) -> list[OutboxRow]:
        if not rows:
            return []
        # The clock is read after the rows, so rows of a later read get greater versions.
        now = read_server_time(self._connection)
        created_at = rfc3339(now)
        first = max(now, self._version + 1)
        self._version = first + len(rows) - 1
        return [
            OutboxRow(row_id, version, str(uuid.uuid4()), PLACED, to_text(payload), trace, created_at)
            for version, (row_id, payload, trace) in enumerate((rows[row_id] for row_id in sorted(rows)), first)
        ]

    def _remove_from_gaps(self, row_id: int) -> None:
        if row_id > self._high:
            if row_id > self._high + 1:
                self._gaps.append((self._high + 1, row_id - 1))
            self._high = row_id
            return
        index = bisect_right(self._gaps, (row_id, math.inf)) - 1
        if index >= 0 and self._gaps[index][1] >= row_id:
            first, last = self._gaps[index]
            parts = ((first, row_id - 1), (row_id + 1, last))
            self._gaps[index : index + 1] = [part for part in parts if part[0] <= part[1]]


def find_start(
    connection: Connection, settings: Settings, proven: bool, report: Callable[[str], None]
) -> WatermarkState:
    """Return an initial watermark: a snapshot taken afterwards sees all rows up to its id.

    Waits until the transactions that are open now have ended, or `source_settle_s` when they cannot
    be listed. `report` receives a line of text before a wait. Raises BadSource, DatabaseAway.
    """
    read_shop_columns(connection, settings)
    statement = f"SELECT COALESCE(MAX({quote(settings.source_id)}), 0) FROM {quote(settings.source_table)}"
    # The maximum of an unsigned column is a DECIMAL.
    low = int(fetch_row(connection, tuple[int | Decimal], statement)[0])
    if not proven:
        report(f"waiting {settings.source_settle_s} s (LATELY_SOURCE_SETTLE_S) for transactions that may be open")
        time.sleep(settings.source_settle_s)
    else:
        time.sleep(REGISTERED_AFTER_S)
        writing = transactions.read_writing_transactions(settings)
        if writing:
            report(f"waiting for {len(writing)} open transactions to end")
        while writing:
            time.sleep(TRANSACTION_POLL_S)
            writing &= transactions.read_writing_transactions(settings)
    return WatermarkState(table=settings.shop_table, low=low, version=0)
