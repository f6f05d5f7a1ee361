"""Copy of the shop's rows on local disk, in the order of the users in the table by_user.

`lately verify` reads it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import mysql.connector

from app.control.source_state import KeyValue, SnapshotState
from app.errors import DatabaseAway
from app.settings import Settings
from commands.scratch_store import open_scratch_store
from domain.codec import encode
from domain.partitioning import partition_of
from domain.purchases import Purchase, overflow_key
from source import snapshot, user_rows
from source.mysql import connect
from source.outbox_row import OutboxRow
from source.shop_row import decode_row
from source.snapshot import Snapshot

#: Maximum age of an interrupted copy that is continued, s.
MAX_AGE_S = 3600
_STATE_KEY = b"\xffhow far"


class CopyState(
    msgspec.Struct, frozen=True, rename={"started_at": "began", "last_key": "after", "is_complete": "done"}
):
    """Progress of a copy of `table`; `started_at` in seconds since 1970.

    The copy goes on after the primary key `last_key`. `is_complete` means that it has been read to
    its end.
    """

    table: str
    started_at: float
    last_key: list[KeyValue] | None = None
    rows: int = 0
    is_complete: bool = False
    #: Rule -> number of rows that break it, which the copy does not contain; not stored if empty.
    left_out: dict[str, int] | msgspec.UnsetType = msgspec.UNSET


_decode_state = msgspec.json.Decoder(CopyState).decode
_decode_purchase = msgspec.msgpack.Decoder(Purchase).decode


class MysqlCopy:
    """The copy, in a folder beside the worker's tables.

    With `resume` an interrupted copy is continued. Raises FolderInUse if another verification uses
    it.
    """

    def __init__(self, settings: Settings, resume: bool) -> None:
        self._settings = settings
        table = f"{settings.mysql_host}:{settings.mysql_port}/{settings.shop_table}"
        self._store = open_scratch_store(Path(f"{settings.folder}-verify"), "verification")
        interrupted = self._interrupted_state(table) if resume else None
        if interrupted is None:
            self._store.wipe()
        self._state = interrupted or CopyState(table, time.time())

    def _interrupted_state(self, table: str) -> CopyState | None:
        value = self._store.get(_STATE_KEY)
        if value is None:
            return None
        state = _decode_state(value)
        is_usable = state.table == table and time.time() - state.started_at < MAX_AGE_S and not state.is_complete
        return state if is_usable else None

    @property
    def started_at(self) -> int:
        """Time before the first row was read, in microseconds since 1970."""
        return int(self._state.started_at * 1e6)

    @property
    def rows(self) -> int:
        """Number of rows read so far."""
        return self._state.rows

    @property
    def left_out(self) -> Counter[str]:
        """Rule -> number of rows that break it, which are not compared."""
        return Counter(self._state.left_out or {})

    async def fill(self, rows_per_s: int, progress: Callable[[int, int], None]) -> None:
        """Read all rows in chunks, at most `rows_per_s` rows per second (0: unlimited).

        `progress` receives the number of rows read and the estimated total. Raises ServerAway.
        """
        try:
            await asyncio.to_thread(self._fill, rows_per_s, progress)
        except mysql.connector.Error as exc:
            raise DatabaseAway(f"MySQL did not answer ({exc}): the next `lately verify` continues from here") from None

    def _fill(self, rows_per_s: int, progress: Callable[[int, int], None]) -> None:
        with closing(connect(self._settings)) as connection:
            all_rows = SnapshotState(table=self._state.table, version=0)
            with closing(Snapshot(connection, self._settings, all_rows)) as reader:
                total = reader.estimate_rows()
                if not snapshot.read_chunk_columns(connection, self._settings):
                    # Without a primary key a read cannot be continued.
                    self._state = CopyState(self._state.table, self._state.started_at)
                started_at, rows_before = time.monotonic(), self._state.rows
                rows, last_key = reader.read_chunk(self._state.last_key)
                while rows:
                    self._store_rows(rows, last_key)
                    progress(self._state.rows, max(total, self._state.rows))
                    if rows_per_s:
                        earliest_s = (self._state.rows - rows_before) / rows_per_s
                        time.sleep(max(0.0, earliest_s - (time.monotonic() - started_at)))
                    rows, last_key = reader.read_chunk(last_key)

    def _store_rows(self, rows: list[OutboxRow], last_key: list[KeyValue] | None) -> None:
        pairs: list[tuple[bytes, bytes | None]] = []
        left_out = self.left_out
        for row in rows:
            order_line, broken_rule = decode_row(row.payload)[1:]
            if broken_rule is not None:
                left_out[broken_rule] += 1
            if order_line is not None:
                user = order_line.user_id.encode()
                prefix = _partition_prefix(partition_of(user, self._settings.partitions))
                purchase = user_rows.to_purchase(order_line)
                pairs.append((prefix + overflow_key(user, *purchase.identity), encode(purchase)))
        self._state = msgspec.structs.replace(
            self._state, last_key=last_key, rows=self._state.rows + len(rows), left_out=dict(left_out) or msgspec.UNSET
        )
        self._store.apply([*pairs, (_STATE_KEY, msgspec.json.encode(self._state))], 0)

    def read_users(self, partition: int) -> Iterator[tuple[bytes, list[Purchase]]]:
        """Yield users and purchases of a partition of `orders`, sorted by the ids as bytes."""
        prefix = _partition_prefix(partition)
        user = b""
        purchases: list[Purchase] = []
        for key, value in self._store.scan(prefix):
            owner = key[len(prefix) :].partition(b"\x00")[0]
            if owner != user:
                if purchases:
                    yield user, purchases
                user, purchases = owner, []
            purchases.append(_decode_purchase(value))
        if purchases:
            yield user, purchases

    def mark_complete(self) -> None:
        """Mark the copy as read to its end: `close` deletes it."""
        self._state = msgspec.structs.replace(self._state, is_complete=True)

    def close(self) -> None:
        """Close the store, and delete it if it has been read to its end."""
        if self._state.is_complete:
            self._store.delete()
        else:
            self._store.close()


def _partition_prefix(partition: int) -> bytes:
    return partition.to_bytes(4, "big")
