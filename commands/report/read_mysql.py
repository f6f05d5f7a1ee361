"""The shop's table as the source of a report: its rows are read in chunks of the primary key, at no single moment."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing

import mysql.connector

from app.control.source_state import SnapshotState
from app.errors import ServerAway
from app.settings import Settings
from commands.report.cache import BATCH_ROWS, Cache, row
from domain.events import SNAPSHOT
from source import snapshot, user_rows
from source.mysql import connect
from source.snapshot import Snapshot

#: A reading that was begun longer ago begins anew.
USABLE_S = 3600
#: The shop comes first.
ROWS_PER_S = 20_000


def fill(settings: Settings, cache: Cache, progress: Callable[[int, int], None]) -> None:
    """Read all rows into the cache; what was interrupted within the last hour goes on. Raises ServerAway, BadSource."""
    try:
        with closing(connect(settings)) as connection:
            began, after, done = cache.run("SELECT began, after, done FROM about")[0]
            if (
                done
                or (after is not None and time.time() - began > USABLE_S)
                or not snapshot.chunked_by(connection, settings)
            ):
                cache.wipe()
                after = None
            begun = SnapshotState(table=settings.source_table, version=0)
            with closing(Snapshot(connection, settings, begun)) as whole:
                _fill(whole, cache, None if after is None else json.loads(after), progress)
    except mysql.connector.Error as exc:
        raise ServerAway(f"MySQL did not answer ({exc}): the same command goes on from here") from None


def _fill(whole: Snapshot, cache: Cache, after: list | None, progress: Callable[[int, int], None]) -> None:
    total, read = whole.estimate(), cache.positions().get(0, (0,))[0]
    rows, unreadable, began, before = [], [], time.monotonic(), read
    found, after = whole.chunk(after)
    while found:
        for one in found:
            purchase = user_rows.purchase(one.payload)
            if purchase is None:
                unreadable.append((0, read))
            else:
                rows.append(row(0, read, SNAPSHOT, purchase))
            read += 1
        progress(read, max(total, read))
        if len(rows) + len(unreadable) >= BATCH_ROWS:
            cache.add(rows, unreadable, {0: (read, None, None)}, json.dumps(after))
            rows, unreadable = [], []
        time.sleep(max(0.0, (read - before) / ROWS_PER_S - (time.monotonic() - began)))
        found, after = whole.chunk(after)
    cache.add(rows, unreadable, {0: (read, None, None)}, json.dumps(after))
    cache.run("UPDATE about SET done = true")
