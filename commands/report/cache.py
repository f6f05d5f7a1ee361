"""What a report has read so far, in a DuckDB file: every event with its offset, so that any earlier position is there.

It can be deleted at any time. A file that is damaged, of another format or of another topic is made anew.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from app.folder_lock import lock_folder
from domain.errors import LatelyError
from domain.events import REMOVED, REPAIRED, OrderLine
from domain.values import microseconds

FORMAT = 1
#: Rows that are handed to DuckDB at once.
BATCH_ROWS = 20_000
#: DuckDB sets aside a multiple of the longest line that it has to expect; a row has some 10 KB at most.
LINE_BYTES = 2**20

#: What is asked of the file, by name; one .sql file each.
SQL = {
    one.name.removesuffix(".sql"): one.read_text() for one in files(__package__).iterdir() if one.name.endswith(".sql")
}


class Row(msgspec.Struct, gc=False):
    """An event as it lies in the file; `order_id` begins with i where it is an integer, and with s where it is text."""

    partition: int
    place: int
    user_id: str
    order_id: str
    product_name: str
    version: int
    live: bool
    repaired: bool
    ordered_at: int
    price: str
    payment_method: str | None


class Erased(msgspec.Struct, gc=False):
    """An erasure of a user as it lies in the file."""

    partition: int
    place: int
    user_id: str
    version: int


def row(partition: int, place: int, kind: str, data: OrderLine) -> Row:
    """What an event of type `kind` at the offset `place` says."""
    order_id = f"i{data.order_id}" if isinstance(data.order_id, int) else f"s{data.order_id}"
    return Row(
        partition, place, data.user_id, order_id, data.product_name, data.version, kind != REMOVED, kind == REPAIRED,
        microseconds(data.ordered_at), data.price, data.payment_method,
    )  # fmt: skip


class Damaged(Exception):
    """The file cannot be used: it has to be made anew."""


class Cache:
    """The file, opened by this process alone. `of` names what was read into it."""

    def __init__(self, folder: Path, name: str, of: str, memory_mb: int) -> None:
        self._folder, self._path, self._of, self._memory_mb = folder, folder / f"{name}.duckdb", of, memory_mb
        self._batch, self._scratch = folder / f"{name}.ndjson", folder / f"{name}-scratch.duckdb"
        self._lock = lock_folder(folder, "another report", "wait for its end, or set LATELY_DATA_DIR", f"{name}.lock")
        try:
            self.connection = self._open()
        except Damaged:
            self.wipe()

    def _open(self) -> duckdb.DuckDBPyConnection:
        try:
            connection = duckdb.connect(
                str(self._path),
                config={
                    "memory_limit": f"{self._memory_mb}MiB", "threads": 1, "preserve_insertion_order": False,
                    "temp_directory": str(self._folder / "spill"), "autoinstall_known_extensions": False,
                },
            )  # fmt: skip
        except duckdb.Error as exc:
            raise Damaged from exc
        try:
            if not connection.execute("SELECT 1 FROM duckdb_tables() LIMIT 1").fetchone():
                connection.begin()
                connection.execute(SQL["schema"])
                connection.execute("INSERT INTO about VALUES (?, ?, epoch(now()), NULL, false)", [FORMAT, self._of])
                connection.commit()
            elif connection.execute("SELECT format, source FROM about").fetchall() != [(FORMAT, self._of)]:
                raise Damaged
            self._forget(self._scratch)
            quoted = str(self._scratch).replace("'", "''")
            connection.execute(f"ATTACH '{quoted}' AS scratch")
            connection.execute(SQL["fold"])
        except duckdb.Error as exc:
            connection.close()
            raise Damaged from exc
        except Damaged:
            connection.close()
            raise
        return connection

    def wipe(self) -> None:
        """Make it anew."""
        self._close_files()
        self._forget(self._path)
        self.connection = self._open()

    def close(self) -> None:
        """Close the file and release its lock."""
        self._close_files()
        self._lock.release()

    def _close_files(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()
            self._forget(self._scratch)
            self._batch.unlink(missing_ok=True)

    def _forget(self, path: Path) -> None:
        for one in (path, Path(f"{path}.wal")):
            one.unlink(missing_ok=True)

    def ask(self, name: str, values: Iterable[object] = ()) -> list[tuple]:
        """The rows of one of the queries. Raises Damaged, LatelyError when memory or disk are too small."""
        return self.run(SQL[name], values)

    def run(self, statement: str, values: Any = ()) -> list[tuple]:
        """The same of any statement."""
        try:
            return self.connection.execute(statement, list(values)).fetchall()
        except duckdb.OutOfMemoryException as exc:
            raise LatelyError(
                f"{self._memory_mb} MiB are not enough for this report: give it more with --memory-mb ({_first(exc)})"
            ) from None
        except duckdb.OutOfRangeException as exc:
            raise LatelyError(f"a sum has more than 28 digits before the point ({_first(exc)})") from None
        except duckdb.Error as exc:
            raise Damaged(_first(exc)) from exc

    def load(self, table: str, rows: list[Row] | list[Erased] | list[dict]) -> None:
        """Add rows to a table; as a file of JSON lines, which is the fastest way in that needs no other library."""
        if not rows:
            return
        described = self.run("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ?", [table])
        columns = ", ".join(f"{name}: '{kind}'" for name, kind in described)
        try:
            self._batch.write_bytes(msgspec.json.Encoder().encode_lines(rows))
        except OSError as exc:
            raise LatelyError(f"{self._batch} cannot be written ({exc.strerror}): make room in its folder") from None
        self.run(
            f"INSERT INTO {table} BY NAME SELECT * FROM read_json($1, format = 'newline_delimited',"
            f" maximum_object_size = {LINE_BYTES}, columns = {{{columns}}})",
            [str(self._batch)],
        )

    # -- what was read

    def positions(self) -> dict[int, tuple[int, int | None, int | None]]:
        """Per partition the next offset to read, and offset and digest of the last record that was read."""
        return {one[0]: one[1:] for one in self.run("SELECT * FROM positions")}

    def add(
        self,
        rows: list[Row],
        unreadable: list[tuple[int, int]],
        positions: Mapping[int, tuple[int, int | None, int | None]],
        after: str | None = None,
        erasures: Iterable[Erased] = (),
    ) -> None:
        """Take over what was read, with the positions behind it, all or nothing.

        `after` is the key to go on behind, where rows are read and not records.
        """
        self.run("BEGIN")
        self.load("events", rows)
        self.load("erasures", list(erasures))
        self.load("unreadable", [{"partition": partition, "place": place} for partition, place in unreadable])
        for partition, values in positions.items():
            self.run("INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)", [partition, *values])
        if after is not None:
            self.run("UPDATE about SET after = ?", [after])
        self.run("COMMIT")


def digest(key: bytes | None, value: bytes | None) -> int:
    """By which a record is known again."""
    return zlib.crc32(value or b"", zlib.crc32(key or b""))


def _first(exc: Exception) -> str:
    return str(exc).partition("\n")[0]
