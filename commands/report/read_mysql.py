"""Reads the shop's table for a report, in chunks of the primary key; the chunks are of different moments."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import mysql.connector

from app.control.source_state import SnapshotState
from app.errors import ServerAway
from app.settings import Settings
from commands.report.cache import BATCH_ROWS, EventCache, EventRow, event_row
from domain.events import SNAPSHOT
from source import snapshot
from source.mysql import connect
from source.shop_row import decode_row
from source.snapshot import Snapshot

#: An interrupted read that is older begins again.
MAX_AGE_S = 3600
#: Limit of the load on the shop's database.
ROWS_PER_S = 20_000


def fill(settings: Settings, cache: EventCache, progress: Callable[[int, int], None]) -> None:
    """Read all rows into the cache, or continue a read of the last hour. Raises ServerAway, BadSource."""
    try:
        with closing(connect(settings)) as connection:
            ((started_at, after, is_done),) = cache.execute("SELECT began, after, done FROM about")
            if (
                is_done
                or (after is not None and time.time() - started_at > MAX_AGE_S)
                or not snapshot.read_chunk_columns(connection, settings)
            ):
                cache.wipe()
                after = None
            state = SnapshotState(table=settings.source_table, version=0)
            with closing(Snapshot(connection, settings, state)) as rows:
                _fill(rows, cache, None if after is None else json.loads(after), progress)
    except mysql.connector.Error as exc:
        raise ServerAway(f"MySQL did not answer ({exc}): repeat the command; it continues from here") from None


def _fill(
    snapshot_rows: Snapshot, cache: EventCache, after: list[Any] | None, progress: Callable[[int, int], None]
) -> None:
    total, count = snapshot_rows.estimate_rows(), cache.positions().get(0, (0, None, None))[0]
    started_at, initial_count = time.monotonic(), count
    rows: list[EventRow] = []
    unreadable: list[tuple[int, int]] = []
    chunk, after = snapshot_rows.read_chunk(after)
    while chunk:
        for outbox_row in chunk:
            line = decode_row(outbox_row.payload).line
            if line is None:
                unreadable.append((0, count))
            else:
                rows.append(event_row(0, count, SNAPSHOT, line))
            count += 1
        progress(count, max(total, count))
        if len(rows) + len(unreadable) >= BATCH_ROWS:
            cache.add(rows, unreadable, {0: (count, None, None)}, json.dumps(after))
            rows, unreadable = [], []
        time.sleep(max(0.0, (count - initial_count) / ROWS_PER_S - (time.monotonic() - started_at)))
        chunk, after = snapshot_rows.read_chunk(after)
    cache.add(rows, unreadable, {0: (count, None, None)}, json.dumps(after))
    cache.execute("UPDATE about SET done = true")
