"""A snapshot: publish the present rows of the shop's table, in chunks of the primary key.

It runs at the same time as the live source. Its version is below the versions of all changes made
after its start. A row that was read before a change therefore never replaces the change, in
whatever order the two are published.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any

import msgspec
import mysql.connector
from mysql.connector.abstracts import MySQLCursorAbstract

from app.control.generation import require_active_generation
from app.control.identity import prepare_topics
from app.control.source_state import MAX_HORIZON, BinaryKey, KeyValue, SnapshotState, SourceStates
from app.errors import BadSource
from app.settings import WATERMARK, Settings
from app.topics import Topics
from domain.events import SNAPSHOT
from domain.values import rfc3339
from source import locks, outbox_owner
from source.columns import Columns, payload_expression, read_primary_key, read_shop_columns
from source.events import build_records, event_source
from source.locks import HeldLock
from source.mysql import Connection, connect, fetch_all, fetch_row, read_server_name, read_server_time, to_text
from source.outbox_row import OutboxRow
from source.outbox_table import displayed_outbox, locate_outbox, read_first_version
from source.publisher import Publisher, open_publisher
from source.quoting import quote

log = logging.getLogger(__name__)

CHUNK_ROWS = 2_000
# Values of these types sort differently in the server and as text, or are not exact as text.
_UNSUITABLE_KEY_TYPES = {"enum", "set", "bit", "float", "double"}
#: Rows between two writes of the progress; a restart repeats at most these rows.
SAVE_EVERY_ROWS = 20_000

#: Called with the number of published rows and the expected total.
ReportProgress = Callable[[int, int], None]
# JSON and key of a row; the types of the key columns depend on the shop's table.
_KeyedRow = tuple[Any, ...]


class Snapshot:
    """One pass through the shop's table, which starts at the position of `state`."""

    def __init__(self, connection: Connection, settings: Settings, state: SnapshotState) -> None:
        self._connection, self._settings, self.state = connection, settings, state
        self._columns = read_shop_columns(connection, settings)
        self._key = read_chunk_columns(connection, settings)
        table = quote(settings.source_table)
        keys = "".join(f", {table}.{quote(name)}" for name in self._key)
        self._select = f"SELECT {payload_expression(self._columns, table)}{keys} FROM {table}"
        self._conditions = _row_conditions(self._columns, state)
        self._order = ", ".join(quote(name) for name in self._key)
        #: Connection and cursor of a read without a primary key.
        self._scan_connection: Connection | None = None
        self._scan: MySQLCursorAbstract | None = None

    def estimate_rows(self) -> int:
        """Return the server's estimate of the number of rows."""
        with self._connection.cursor() as cursor:
            # The default format differs: MySQL 9 answers with a tree, without the column "rows".
            cursor.execute(f"EXPLAIN FORMAT=TRADITIONAL {self._select}{_where(self._conditions)}")
            names = [column[0].lower() for column in cursor.description or ()]
            plan: list[_KeyedRow] = _as_tuples(cursor.fetchall())
            return int(plan[0][names.index("rows")] or 0)

    def read_chunk(self, after: list[KeyValue] | None) -> tuple[list[OutboxRow], list[KeyValue] | None]:
        """Return the rows after the key `after` (None: the first rows), and the last row's key.

        No rows mean that the end is reached.
        """
        chunk = self._read_after(after) if self._key else self._read_next()
        now = rfc3339(time.time_ns() // 1000)
        version = self.state.version
        rows = [OutboxRow(version, version, str(uuid.uuid4()), SNAPSHOT, to_text(row[0]), None, now) for row in chunk]
        if not chunk:
            return rows, after
        return rows, [_to_key_value(value) for value in chunk[-1][1:]] or None

    def close(self) -> None:
        """Close the connection of a read without a primary key."""
        if self._scan_connection is not None:
            self._scan_connection.close()

    def _read_after(self, after: list[KeyValue] | None) -> list[_KeyedRow]:
        conditions = self._conditions if after is None else [*self._conditions, _after_condition(self._key, after)]
        return fetch_all(
            self._connection,
            tuple[Any, ...],
            f"{self._select}{_where(conditions)} ORDER BY {self._order} LIMIT {CHUNK_ROWS}",
        )

    def _read_next(self) -> list[_KeyedRow]:
        """Continue a single read of the whole table, which has no primary key.

        It cannot be resumed.
        """
        if self._scan is None:
            self._scan_connection = connect(self._settings)
            self._scan = self._scan_connection.cursor()
            self._scan.execute(f"{self._select}{_where(self._conditions)}")
        return _as_tuples(self._scan.fetchmany(CHUNK_ROWS))

    def finish(self, state: SnapshotState) -> SnapshotState:
        """Return the state of a finished snapshot, with its horizon."""
        horizon = state.horizon
        if state.where is None and state.since is not None:
            ordered_at = quote(self._columns["ordered_at"].name)
            older_rows = fetch_all(
                self._connection,
                tuple[int],
                f"SELECT 1 FROM {quote(self._settings.source_table)}"
                f" WHERE {ordered_at} < CAST('{state.since}' AS DATETIME(6)) LIMIT 1",
            )
            horizon = (min(state.since, horizon) if horizon else horizon) if older_rows else None
        elif state.where is None:
            horizon = None
        has_all_rows = state.since is None and state.where is None
        fulfilled_at = state.request_at if has_all_rows else state.fulfilled_at
        return msgspec.structs.replace(state, is_done=True, horizon=horizon, fulfilled_at=fulfilled_at)


async def run(
    settings: Settings,
    *,
    since: str | None = None,
    where: str | None = None,
    resume: bool = True,
    progress: ReportProgress = lambda rows, total: None,
) -> SnapshotState:
    """Publish the rows ordered at `since` or later that satisfy `where` (SQL); None: all rows.

    `since` is "YYYY-MM-DD HH:MM:SS.ffffff" in UTC. An interrupted snapshot of the same rows
    continues at its last saved key, unless `resume` is false. The order of the steps makes that
    safe:

    1. Read a chunk.
    2. Publish it and wait for all acknowledgements.
    3. Save the key of its last row.

    Raises BadSource, WrongGeneration, ServerAway.
    """
    topics = Topics(settings)
    states, cluster = await prepare_topics(settings)
    connection = await asyncio.to_thread(connect, settings)
    with closing(connection):
        settings = await asyncio.to_thread(locate_outbox, connection, settings)
        own = outbox_owner.owner_by_settings(settings, cluster)
        await asyncio.to_thread(outbox_owner.require_owner, connection, settings, own, states.shop)
        lock = await asyncio.to_thread(_acquire_lock, connection, settings)
        state = _start_or_resume(connection, settings, since, where, states, resume)
        source = event_source(read_server_name(connection), settings)
        try:
            with closing(Snapshot(connection, settings, state)) as snapshot:
                async with require_active_generation(settings), open_publisher(settings, topics) as publisher:
                    return await _publish_all(snapshot, lock, publisher, topics, settings, source, progress)
        except mysql.connector.Error as exc:
            raise BadSource(f"the snapshot stopped ({exc}): run `lately source snapshot` to continue it") from None
        finally:
            await asyncio.to_thread(lock.release)


async def _publish_all(
    snapshot: Snapshot,
    lock: HeldLock,
    publisher: Publisher,
    topics: Topics,
    settings: Settings,
    source: str,
    progress: ReportProgress,
) -> SnapshotState:
    state = snapshot.state
    total = await asyncio.to_thread(snapshot.estimate_rows)
    await publisher.write_states(state)
    # 1.
    rows, last_key = await asyncio.to_thread(snapshot.read_chunk, state.last_key)
    saved_rows = state.rows
    while rows:
        # The next chunk is read while this one is published.
        next_chunk = asyncio.create_task(asyncio.to_thread(snapshot.read_chunk, last_key))
        # 2.
        await publisher.publish([record for row in rows for record in build_records(row, source, topics, settings)])
        state = msgspec.structs.replace(state, rows=state.rows + len(rows), last_key=last_key)
        progress(state.rows, max(total, state.rows))
        # 3.
        if state.rows - saved_rows >= SAVE_EVERY_ROWS:
            await publisher.write_states(state)
            saved_rows = state.rows
        rows, last_key = await next_chunk
        await asyncio.to_thread(lock.require)
    state = await asyncio.to_thread(snapshot.finish, state)
    await publisher.write_states(state)
    return state


def count_rows(settings: Settings, since: str | None, where: str | None) -> tuple[int, str]:
    """Return the number of rows that a snapshot would publish, and the condition that selects them.

    Raises BadSource, DatabaseAway.
    """
    with closing(connect(settings)) as connection:
        columns = read_shop_columns(connection, settings)
        condition = _where(_row_conditions(columns, SnapshotState(table="", version=0, since=since, where=where)))
        try:
            statement = f"SELECT COUNT(*) FROM {quote(settings.source_table)}{condition}"
            return fetch_row(connection, tuple[int], statement)[0], condition.removeprefix(" WHERE ") or "all rows"
        except mysql.connector.Error as exc:
            raise BadSource(f"the rows could not be counted ({exc}): correct --where") from None


def snapshot_version(connection: Connection, settings: Settings) -> int:
    """Return the version for the events of a snapshot that starts now.

    With an outbox it is the version just below the first id: a change that the triggers saw is
    newer than any snapshot, and a change that they did not see was made before. In watermark mode
    it is the server's time before the first row is read, because the version of a live event is the
    time after it was read. Raises BadSource when there is no outbox.
    """
    if settings.source_mode == WATERMARK:
        return read_server_time(connection)
    settings = locate_outbox(connection, settings)
    first = read_first_version(connection, settings)
    if first is None:
        raise BadSource(f"there is no outbox {displayed_outbox(settings)}: run `lately source setup` first")
    return first - 1


def read_chunk_columns(connection: Connection, settings: Settings) -> list[str]:
    """Return the columns for reads in chunks; empty without a suitable primary key."""
    key = read_primary_key(connection, settings)
    is_unsuitable = any(column.type in _UNSUITABLE_KEY_TYPES for column in key)
    return [] if is_unsuitable else [column.name for column in key]


def _start_or_resume(
    connection: Connection, settings: Settings, since: str | None, where: str | None, states: SourceStates, resume: bool
) -> SnapshotState:
    """Return the state of an interrupted snapshot of these rows, or of a new snapshot."""
    previous = states.snapshot
    request_at = 0 if states.request is None else states.request.requested_at
    table = settings.shop_table
    version = snapshot_version(connection, settings)
    horizon: str | None = MAX_HORIZON
    if previous is not None and previous.table == table:
        is_same_version = settings.source_mode == WATERMARK or previous.version == version
        includes_rows = previous.where == where and (
            previous.since is None or (since is not None and previous.since <= since)
        )
        # Rows that were published before a request may be the missing ones.
        is_same_request = previous.request_at == request_at
        if resume and not previous.is_done and is_same_version and includes_rows and is_same_request:
            log.info("the snapshot continues after row %d", previous.rows)
            return previous
        if is_same_version:
            horizon = previous.horizon
    return SnapshotState(
        table=table, version=version, since=since, where=where, horizon=horizon, request_at=request_at,
        fulfilled_at=0 if previous is None else previous.fulfilled_at,
    )  # fmt: skip


def _as_tuples(rows: Any) -> list[_KeyedRow]:
    """Declare rows of a cursor as tuples: the connector's own types also allow dictionaries."""
    tuples: list[_KeyedRow] = rows
    return tuples


def _to_key_value(value: object) -> KeyValue:
    """Convert a value of a key to one that the state can contain; `_sql_literal` restores it."""
    if isinstance(value, bytes | bytearray):
        return BinaryKey(bytes(value).hex())
    return value if isinstance(value, int) else str(value)


def _acquire_lock(connection: Connection, settings: Settings) -> HeldLock:
    lock = locks.acquire(connection, settings, locks.SNAPSHOT, 0)
    if lock is None:
        holder = locks.find_holder(connection, settings, locks.SNAPSHOT) or "it has just ended"
        raise BadSource(f"another snapshot of this table is running ({holder}): wait for its end, or stop it")
    return lock


def _row_conditions(columns: Columns, state: SnapshotState) -> list[str]:
    """Return the conditions that select the rows of a snapshot."""
    conditions = [f"({state.where})"] if state.where else []
    if state.since is not None:
        conditions.append(f"{quote(columns['ordered_at'].name)} >= CAST('{state.since}' AS DATETIME(6))")
    return conditions


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _after_condition(key: list[str], after: list[KeyValue]) -> str:
    """Return the condition that a row follows the key `after`, in a form that can use the index."""
    names, values = [quote(name) for name in key], [_sql_literal(value) for value in after]
    equal = [f"{name} = {value}" for name, value in zip(names, values, strict=True)]
    alternatives = [" AND ".join([*equal[:at], f"{names[at]} > {values[at]}"]) for at in range(len(key))]
    # Without the first condition the server may read the whole index for the alternatives.
    return f"{names[0]} >= {values[0]} AND (({') OR ('.join(alternatives)}))"


def _sql_literal(value: KeyValue) -> str:
    """Return a value of a key in SQL. It is not a parameter, because --where may contain a `%s`."""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, BinaryKey):
        return f"X'{bytes.fromhex(value.hex).hex()}'"
    return f"_utf8mb4 X'{value.encode().hex()}'"
