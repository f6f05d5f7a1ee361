"""A copy of the shop's rows on disk, in the order in which the table has its users; a verification reads it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import mysql.connector

from app.control.source_state import SnapshotState
from app.errors import BadSource, ServerAway
from app.settings import Settings
from chunks import Store
from domain.codec import encode
from domain.partitioning import partition_of
from domain.purchases import Purchase, overflow_key
from source import snapshot, user_rows
from source.mysql import connect
from source.snapshot import Snapshot

#: A copy that was begun longer ago is made anew.
USABLE_S = 3600
_HOW_FAR = b"\xffhow far"


class CopyState(msgspec.Struct, frozen=True):
    """Of which table, since when (seconds since 1970), behind which key to go on, and how many rows there are."""

    table: str
    began: float
    after: list | None = None
    rows: int = 0
    done: bool = False


_decode = msgspec.json.Decoder(CopyState).decode
_decode_register = msgspec.msgpack.Decoder(Purchase).decode


class MysqlCopy:
    """The copy; it lies beside the worker's tables, and goes on where one was interrupted."""

    def __init__(self, settings: Settings, resume: bool) -> None:
        self._settings = settings
        self._path = Path(f"{settings.folder}-verify")
        self._table = f"{settings.mysql_host}:{settings.mysql_port}/{settings.mysql_database}.{settings.source_table}"
        self._store = self._open()
        said = self._store.get(_HOW_FAR)
        known = None if said is None else _decode(said)
        fit = known and known.table == self._table and time.time() - known.began < USABLE_S and not known.done
        if not (resume and fit):
            self._store.wipe()
            known = CopyState(self._table, time.time())
        self._at = known

    def _open(self) -> Store:
        try:
            return Store(self._path).open()
        except Exception as exc:  # rocksdict raises nothing else
            if "lock" not in str(exc).lower():
                raise
            raise BadSource(f"another verification is at work in {self._path}: wait for its end, or stop it") from None

    @property
    def began(self) -> int:
        """When the first row was read, in microseconds since 1970."""
        return int(self._at.began * 1e6)

    @property
    def rows(self) -> int:
        """Rows read so far."""
        return self._at.rows

    async def fill(self, rows_per_s: int, progress: Callable[[int, int], None]) -> None:
        """Read all rows, in chunks of the primary key, at most `rows_per_s` per second; 0: as fast as it goes."""
        try:
            await asyncio.to_thread(self._fill, rows_per_s, progress)
        except mysql.connector.Error as exc:
            raise ServerAway(f"MySQL did not answer ({exc}): the next `lately verify` goes on from there") from None

    def _fill(self, rows_per_s: int, progress: Callable[[int, int], None]) -> None:
        with closing(connect(self._settings)) as connection:
            begun = SnapshotState(table=self._table, version=0)
            with closing(Snapshot(connection, self._settings, begun)) as whole:
                total = whole.estimate_rows()
                if not snapshot.read_chunk_columns(connection, self._settings):
                    self._at = CopyState(self._table, self._at.began)
                began, before = time.monotonic(), self._at.rows
                rows, after = whole.read_chunk(self._at.after)
                while rows:
                    self._take(rows, after)
                    progress(self._at.rows, max(total, self._at.rows))
                    if rows_per_s:
                        # In no second are there more.
                        time.sleep(max(0.0, (self._at.rows - before) / rows_per_s - (time.monotonic() - began)))
                    rows, after = whole.read_chunk(after)

    def _take(self, rows: list, after: list | None) -> None:
        values = []
        for row in rows:
            one = user_rows.decode_row(row.payload)
            if one is not None:
                user = one.user_id.encode()
                key = _prefix(partition_of(user, self._settings.partitions))
                kept = user_rows.register(one)
                values.append((key + overflow_key(user, *kept.identity), encode(kept)))
        self._at = CopyState(self._table, self._at.began, after, self._at.rows + len(rows))
        self._store.apply([*values, (_HOW_FAR, msgspec.json.encode(self._at))], 0)

    def users(self, partition: int) -> Iterator[tuple[bytes, list[Purchase]]]:
        """The users of a partition of `orders` in the order of their ids' bytes, each with their rows."""
        prefix = _prefix(partition)
        user, rows = b"", []
        for key, value in self._store.scan(prefix):
            owner = key[len(prefix) :].partition(b"\x00")[0]
            if owner != user:
                if rows:
                    yield user, rows
                user, rows = owner, []
            rows.append(_decode_register(value))
        if rows:
            yield user, rows

    def forget(self) -> None:
        """It was read to its end."""
        self._at = msgspec.structs.replace(self._at, done=True)

    def close(self) -> None:
        """Close it, and delete it once it was read to its end."""
        self._store.close()
        if self._at.done:
            shutil.rmtree(self._path)


def _prefix(partition: int) -> bytes:
    return partition.to_bytes(4, "big")
