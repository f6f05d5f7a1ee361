"""A snapshot: the rows that the shop's table holds now become events, in chunks of its primary key.

It runs beside the live source. Its version is below every change made after it began, so a row that was read before it
changed never replaces the change, whichever of the two is published first.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import closing

import msgspec
import mysql.connector

from app.control import source_state
from app.control.generation import require_active_generation, require_startable_generation
from app.control.source_state import MAX_HORIZON, SnapshotState
from app.errors import BadSource
from app.kafka.admin import ensure_topics
from app.settings import WATERMARK, Settings
from app.topics import Topics
from domain.events import SNAPSHOT
from domain.values import rfc3339
from source import locks, triggers
from source.columns import Columns, payload_expression, quote, read_primary_key, read_shop_columns
from source.events import build_record
from source.mysql import Connection, connect, read_server_name, read_server_time, to_text
from source.outbox import OutboxRow
from source.publisher import Publisher, open_publisher

log = logging.getLogger(__name__)

CHUNK_ROWS = 2_000
# Their order is not that of the values that a client sees, or these are not exact.
_UNFIT = {"enum", "set", "bit", "float", "double"}
#: How far it is, is written down after so many rows; a restart repeats at most these.
SAVE_EVERY_ROWS = 20_000


class Snapshot:
    """One pass over the shop's table, from where `state` says that it stands."""

    def __init__(self, connection: Connection, settings: Settings, begun: SnapshotState) -> None:
        self._connection, self._settings, self.state = connection, settings, begun
        self._columns = columns = read_shop_columns(connection, settings)
        self._key = read_chunk_columns(connection, settings)
        table = quote(settings.source_table)
        keys = "".join(f", {table}.{quote(name)}" for name in self._key)
        self._select = f"SELECT {payload_expression(columns, table)}{keys} FROM {table}"
        self._rows: Connection | None = None
        self._wanted = _wanted(columns, begun)
        self._order = ", ".join(quote(name) for name in self._key)

    def estimate_rows(self) -> int:
        """How many rows there are, as the server guesses."""
        with self._connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {self._select}{_where(self._wanted)}")
            names = [name.lower() for name in cursor.column_names]
            return int(cursor.fetchall()[0][names.index("rows")] or 0)

    def read_chunk(self, after: list | None) -> tuple[list[OutboxRow], list | None]:
        """The rows behind the key `after`, and the key of the last of them; no rows: the end is reached."""
        found = self._behind(after) if self._key else self._next()
        now = rfc3339(time.time_ns() // 1000)
        version = self.state.version
        rows = [OutboxRow(version, version, str(uuid.uuid4()), SNAPSHOT, to_text(one[0]), None, now) for one in found]
        return rows, [_portable(value) for value in found[-1][1:]] or None if found else after

    def close(self) -> None:
        """Close what a table without a primary key is read by."""
        if self._rows is not None:
            self._rows.close()

    def _behind(self, after: list | None) -> list[tuple]:
        conditions = self._wanted if after is None else [*self._wanted, _beyond(self._key, after)]
        with self._connection.cursor() as cursor:
            cursor.execute(f"{self._select}{_where(conditions)} ORDER BY {self._order} LIMIT {CHUNK_ROWS}")
            return cursor.fetchall()

    def _next(self) -> list[tuple]:
        """Without a primary key: one read of the whole table, from which nothing can be resumed."""
        if self._rows is None:
            self._rows = connect(self._settings)
            self._cursor = self._rows.cursor()
            self._cursor.execute(f"{self._select}{_where(self._wanted)}")
        return self._cursor.fetchmany(CHUNK_ROWS)

    def end(self, at: SnapshotState) -> SnapshotState:
        """The state of a snapshot that has come to its end: what may still be missing now."""
        horizon = at.horizon
        if at.where is None and at.since is not None:
            ordered_at = quote(self._columns["ordered_at"][0])
            with self._connection.cursor() as cursor:
                cursor.execute(
                    f"SELECT 1 FROM {quote(self._settings.source_table)}"
                    f" WHERE {ordered_at} < CAST('{at.since}' AS DATETIME(6)) LIMIT 1"
                )
                older = bool(cursor.fetchall())
            horizon = (min(at.since, horizon) if horizon else horizon) if older else None
        elif at.where is None:
            horizon = None
        granted = at.wanted if at.since is None and at.where is None else at.granted
        return msgspec.structs.replace(at, done=True, horizon=horizon, granted=granted)


async def run(
    settings: Settings,
    *,
    since: str | None = None,
    where: str | None = None,
    resume: bool = True,
    progress: Callable[[int, int], None] = lambda rows, total: None,
) -> SnapshotState:
    """Publish the rows ordered at `since` or later for which the SQL condition `where` holds; None: all.

    `since` is "YYYY-MM-DD HH:MM:SS.ffffff" in UTC. A snapshot of the same rows that was interrupted goes on where it
    stopped, unless `resume` is false. The order of
    the steps makes that safe: 1. read a chunk, 2. publish it and wait for every acknowledgement, 3. remember the key of
    its last row. `progress` is told rows published and rows expected. Raises BadSource, ServerAway.
    """
    await require_startable_generation(settings)
    await ensure_topics(settings)
    known = await source_state.read(settings)
    connection = await asyncio.to_thread(connect, settings)
    with closing(connection):
        await asyncio.to_thread(_only_one, connection, settings)
        begun = _begin(connection, settings, since, where, known, resume)
        try:
            with closing(Snapshot(connection, settings, begun)) as snapshot:
                async with require_active_generation(settings), open_publisher(settings) as publisher:
                    return await _publish_all(snapshot, publisher, settings, read_server_name(connection), progress)
        except mysql.connector.Error as exc:
            raise BadSource(f"the snapshot stopped ({exc}): `lately source snapshot` goes on from there") from None


async def _publish_all(
    snapshot: Snapshot, publisher: Publisher, settings: Settings, server: str, progress: Callable[[int, int], None]
) -> SnapshotState:
    topics, at = Topics(settings), snapshot.state
    source = f"/mysql/{server}/{settings.mysql_database}/{settings.source_table}"
    total = await asyncio.to_thread(snapshot.estimate_rows)
    await publisher.write_states(at)
    # 1.
    rows, after = await asyncio.to_thread(snapshot.read_chunk, at.after)
    remembered = at.rows
    while rows:
        # The next chunk is read while this one is on its way.
        coming = asyncio.create_task(asyncio.to_thread(snapshot.read_chunk, after))
        # 2.
        await publisher.publish([build_record(row, source, topics, settings) for row in rows])
        at = msgspec.structs.replace(at, rows=at.rows + len(rows), after=after)
        progress(at.rows, max(total, at.rows))
        # 3.
        if at.rows - remembered >= SAVE_EVERY_ROWS:
            await publisher.write_states(at)
            remembered = at.rows
        rows, after = await coming
    at = await asyncio.to_thread(snapshot.end, at)
    await publisher.write_states(at)
    return at


def count_rows(settings: Settings, since: str | None, where: str | None) -> tuple[int, str]:
    """How many rows a snapshot would publish, and the condition that chooses them. Raises BadSource, ServerAway."""
    with closing(connect(settings)) as connection, connection.cursor() as cursor:
        columns = read_shop_columns(connection, settings)
        condition = _where(_wanted(columns, SnapshotState(table="", version=0, since=since, where=where)))
        try:
            cursor.execute(f"SELECT COUNT(*) FROM {quote(settings.source_table)}{condition}")
        except mysql.connector.Error as exc:
            raise BadSource(f"the rows could not be counted ({exc}): mend --where") from None
        return cursor.fetchone()[0], condition.removeprefix(" WHERE ") or "all rows"


def snapshot_version(connection: Connection, settings: Settings) -> int:
    """The version of the events of a snapshot that begins now. Raises BadSource when nothing is set up.

    With an outbox it is the one just below its first id: a change that the triggers saw is newer than any snapshot,
    one that they did not see was before them. Otherwise it is the server's clock before the first row is read: a live
    event's version is the clock after it was read.
    """
    if settings.source_mode == WATERMARK:
        return read_server_time(connection)
    first = triggers.read_first_version(connection, settings)
    if first is None:
        raise BadSource(f"there is no outbox {settings.source_outbox}: run `lately source setup` first")
    return first - 1


def read_chunk_columns(connection: Connection, settings: Settings) -> list[str]:
    """The columns by which the shop's table can be read in chunks; none: it has no primary key that is fit for it."""
    key = read_primary_key(connection, settings)
    return [] if any(kind in _UNFIT for _, kind in key) else [name for name, _ in key]


def _begin(
    connection: Connection,
    settings: Settings,
    since: str | None,
    where: str | None,
    known: source_state.States,
    resume: bool,
) -> SnapshotState:
    before, wish = known.get(source_state.SNAPSHOT), known.get(source_state.WISH)
    wanted = 0 if wish is None else wish.at
    table = f"{settings.mysql_database}.{settings.source_table}"
    version, horizon = snapshot_version(connection, settings), MAX_HORIZON
    if before is not None and before.table == table:
        goes_on = settings.source_mode == WATERMARK or before.version == version
        covers = before.where == where and (before.since is None or (since is not None and before.since <= since))
        # What was published before a wish may be what is missing.
        if resume and not before.done and goes_on and covers and before.wanted == wanted:
            log.info("the snapshot goes on behind row %d", before.rows)
            return before
        if goes_on:
            horizon = before.horizon
    granted = 0 if before is None else before.granted
    return SnapshotState(
        table=table, version=version, since=since, where=where, horizon=horizon, wanted=wanted, granted=granted
    )


def _portable(value: object) -> object:
    """A value of a key as JSON can hold it, and MySQL understand it."""
    if isinstance(value, bytes | bytearray):
        return {"hex": bytes(value).hex()}
    return value if isinstance(value, int) else str(value)


def _only_one(connection: Connection, settings: Settings) -> None:
    if not locks.acquire(connection, locks.snapshot_lock(settings), 0):
        raise BadSource("another snapshot of this table is running: wait for its end, or stop it")


def _wanted(columns: Columns, wanted: SnapshotState) -> list[str]:
    conditions = [f"({wanted.where})"] if wanted.where else []
    if wanted.since is not None:
        conditions.append(f"{quote(columns['ordered_at'][0])} >= CAST('{wanted.since}' AS DATETIME(6))")
    return conditions


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _beyond(key: list[str], after: list) -> str:
    """The condition that a row lies behind `after` in the order of `key`, so that an index can be used."""
    names, values = [quote(name) for name in key], [_literal(value) for value in after]
    equal = [f"{name} = {value}" for name, value in zip(names, values, strict=True)]
    alternatives = [" AND ".join([*equal[:at], f"{names[at]} > {values[at]}"]) for at in range(len(key))]
    # Without the first condition the server may read the whole index for the alternatives.
    return f"{names[0]} >= {values[0]} AND (({') OR ('.join(alternatives)}))"


def _literal(value: object) -> str:
    """A value of a key in SQL. Not as a parameter: a `%s` in the condition of --where would be taken for one."""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        return f"X'{value['hex']}'"
    return f"_utf8mb4 X'{str(value).encode().hex()}'"
