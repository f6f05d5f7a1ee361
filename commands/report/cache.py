"""Cache of a report: a DuckDB file with every event and its offset, so that any earlier position can be counted.

The file can be deleted at any time. A damaged file, or one of another format or topic, is created again.
"""

from __future__ import annotations

import fcntl
import zlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from app.errors import FolderInUse
from app.folder_lock import lock_folder
from domain.errors import LatelyError
from domain.events import REMOVED, REPAIRED, OrderLine
from domain.values import microseconds

FORMAT = 1
#: Rows of one insert.
BATCH_ROWS = 20_000
#: DuckDB reserves a multiple of the longest expected line; a row has at most some 10 KB.
LINE_BYTES = 2**20

#: Query name -> SQL, one .sql file each.
SQL = {
    file.name.removesuffix(".sql"): file.read_text()
    for file in files(__package__).iterdir()
    if file.name.endswith(".sql")
}

#: Values of one row of a query.
SqlRow = tuple[Any, ...]
#: Next offset to read, and offset and checksum of the last record that was read.
ReadPosition = tuple[int, "int | None", "int | None"]


class EventRow(msgspec.Struct, gc=False, rename={"offset": "place"}):
    """An event in the file; `order_id` begins with i for an integer, and with s for text."""

    partition: int
    offset: int
    user_id: str
    order_id: str
    product_name: str
    version: int
    live: bool
    repaired: bool
    ordered_at: int
    price: str
    payment_method: str | None


class ErasureRow(msgspec.Struct, gc=False, rename={"offset": "place"}):
    """An erasure of a user in the file."""

    partition: int
    offset: int
    user_id: str
    version: int


def event_row(partition: int, offset: int, event_type: str, line: OrderLine) -> EventRow:
    """The row of an event."""
    order_id = f"i{line.order_id}" if isinstance(line.order_id, int) else f"s{line.order_id}"
    return EventRow(
        partition, offset, line.user_id, order_id, line.product_name, line.version, event_type != REMOVED,
        event_type == REPAIRED, microseconds(line.ordered_at), line.price, line.payment_method,
    )  # fmt: skip


class DamagedCache(Exception):
    """The file cannot be used and must be created again."""


class EventCache:
    """The DuckDB file, opened by this process alone. `source_name` identifies the origin of its rows.

    Raises LatelyError while another report uses the folder.
    """

    def __init__(self, folder: Path, name: str, source_name: str, memory_mb: int) -> None:
        self._folder, self._path, self._memory_mb = folder, folder / f"{name}.duckdb", memory_mb
        self._source_name = source_name
        self._batch, self._scratch = folder / f"{name}.ndjson", folder / f"{name}-scratch.duckdb"
        self._lock = lock_folder(folder, "another report", "wait for its end, or set LATELY_DATA_DIR", f"{name}.lock")
        self._connection: duckdb.DuckDBPyConnection | None = None
        try:
            self._open()
        except DamagedCache:
            self.wipe()

    def _open(self) -> None:
        try:
            connection = duckdb.connect(
                str(self._path),
                config={
                    "memory_limit": f"{self._memory_mb}MiB", "threads": 1, "preserve_insertion_order": False,
                    "temp_directory": str(self._folder / "spill"), "autoinstall_known_extensions": False,
                },
            )  # fmt: skip
        except duckdb.Error as exc:
            if _is_locked(self._path):
                raise FolderInUse(
                    f"another process has opened {self._path}: wait for its end, or set LATELY_DATA_DIR"
                ) from None
            raise DamagedCache from exc
        try:
            if not connection.execute("SELECT 1 FROM duckdb_tables() LIMIT 1").fetchone():
                connection.begin()
                connection.execute(SQL["schema"])
                connection.execute(
                    "INSERT INTO about VALUES (?, ?, epoch(now()), NULL, false)", [FORMAT, self._source_name]
                )
                connection.commit()
            elif connection.execute("SELECT format, source FROM about").fetchall() != [(FORMAT, self._source_name)]:
                raise DamagedCache
            _delete(self._scratch)
            quoted = str(self._scratch).replace("'", "''")
            connection.execute(f"ATTACH '{quoted}' AS scratch")
            connection.execute(SQL["fold"])
        except duckdb.Error as exc:
            connection.close()
            raise DamagedCache from exc
        except DamagedCache:
            connection.close()
            raise
        self._connection = connection

    def wipe(self) -> None:
        """Delete the file and create an empty one."""
        self._close_files()
        _delete(self._path)
        self._open()

    def close(self) -> None:
        """Close the file and release its lock."""
        self._close_files()
        self._lock.release()

    def _close_files(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            _delete(self._scratch)
            self._batch.unlink(missing_ok=True)

    def query(self, name: str, values: Sequence[object] = ()) -> list[SqlRow]:
        """Run the query `name` of SQL. Raises DamagedCache, and LatelyError if memory or disk is too small."""
        return self.execute(SQL[name], values)

    def execute(self, statement: str, values: Sequence[object] = ()) -> list[SqlRow]:
        """Run any statement and return its rows. Raises as `query`."""
        if self._connection is None:
            raise DamagedCache("the file is closed")
        try:
            return self._connection.execute(statement, list(values)).fetchall()
        except duckdb.OutOfMemoryException as exc:
            raise LatelyError(
                f"{self._memory_mb} MiB are too little for this report: set a larger --memory-mb ({_first_line(exc)})"
            ) from None
        except duckdb.OutOfRangeException as exc:
            raise LatelyError(f"a sum has more than 28 digits before the point ({_first_line(exc)})") from None
        except duckdb.Error as exc:
            raise DamagedCache(_first_line(exc)) from exc

    def load(self, table: str, rows: Sequence[EventRow | ErasureRow | dict[str, int]]) -> None:
        """Add rows to a table through a file of JSON lines, the fastest way without another library."""
        if not rows:
            return
        described = self.execute("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ?", [table])
        columns = ", ".join(f"{name}: '{sql_type}'" for name, sql_type in described)
        try:
            self._batch.write_bytes(msgspec.json.Encoder().encode_lines(rows))
        except OSError as exc:
            raise LatelyError(f"{self._batch} cannot be written ({exc.strerror}): free space on its disk") from None
        self.execute(
            f"INSERT INTO {table} BY NAME SELECT * FROM read_json($1, format = 'newline_delimited',"
            f" maximum_object_size = {LINE_BYTES}, columns = {{{columns}}})",
            [str(self._batch)],
        )

    def positions(self) -> dict[int, ReadPosition]:
        """Partition -> its read position."""
        rows = self.execute("SELECT partition, next_place, last_place, last_digest FROM positions")
        return {partition: (following, last, checksum) for partition, following, last, checksum in rows}

    def add(
        self,
        rows: Sequence[EventRow],
        unreadable: Iterable[tuple[int, int]],
        positions: Mapping[int, ReadPosition],
        after: str | None = None,
        erasures: Sequence[ErasureRow] = (),
    ) -> None:
        """Add rows and the positions behind them in one transaction.

        `unreadable` contains (partition, offset). `after` is the primary key to continue after, if MySQL rows are read.
        """
        self.execute("BEGIN")
        self.load("events", rows)
        self.load("erasures", erasures)
        self.load("unreadable", [{"partition": partition, "place": offset} for partition, offset in unreadable])
        for partition, position in positions.items():
            self.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)", [partition, *position])
        if after is not None:
            self.execute("UPDATE about SET after = ?", [after])
        self.execute("COMMIT")


def record_checksum(key: bytes | None, value: bytes | None) -> int:
    """CRC-32 of a record, to recognize it later."""
    return zlib.crc32(value or b"", zlib.crc32(key or b""))


def _is_locked(path: Path) -> bool:
    """Return True if another process holds DuckDB's lock of a database file.

    A report of Lately 0.1 holds only that lock, and any other program that has opened the file too.
    """
    try:
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _delete(path: Path) -> None:
    for file in (path, Path(f"{path}.wal")):
        file.unlink(missing_ok=True)


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]
