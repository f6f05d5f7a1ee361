"""Standing in for the leading source: for a moment nobody publishes, and changes wait in the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import mysql.connector

from app.errors import ServerAway, StillRunning
from app.settings import Settings
from source import locks
from source.mysql import Connection, connect, read_server_time

#: How long a lock is waited for without a pause in which this can be stopped, and how often, for the leader's.
WITHIN_S, TIMES = 5, 12
#: After so many seconds without a word from here the server gives the locks to others: this may be frozen, or gone.
IDLE_S = 180


class Lead:
    """The leader's lock and the lock of snapshots, held here."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection, self._settings = connection, settings

    async def require(self) -> int:
        """The server's clock (microseconds), while the locks are still held. Raises ServerAway."""
        held = [await asyncio.to_thread(locks.is_owned, self._connection, lock) for lock in _locks(self._settings)]
        if not all(held):
            raise ServerAway("the connection that kept the source waiting was lost: run this again, it goes on")
        return await asyncio.to_thread(read_server_time, self._connection)


@asynccontextmanager
async def leading(settings: Settings) -> AsyncIterator[Lead]:
    """Ask the source to make way, and hold its lock. Raises StillRunning when it does not, ServerAway, BadSource."""
    connection = await asyncio.to_thread(connect, settings)
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION wait_timeout = {IDLE_S}")
        leaders, snapshots = _locks(settings)
        if not await asyncio.to_thread(locks.acquire, connection, locks.handover_lock(settings), WITHIN_S):
            raise StillRunning("another `lately rescale` is switching: wait for its end, or stop it")
        if not await asyncio.to_thread(locks.acquire, connection, snapshots, WITHIN_S):
            raise StillRunning("a snapshot is running: wait for its end, or stop it; then run this again")
        for _ in range(TIMES):
            if await asyncio.to_thread(locks.acquire, connection, leaders, WITHIN_S):
                break
        else:
            raise StillRunning(f"the source did not make way within {WITHIN_S * TIMES} s: stop it, and run this again")
        yield Lead(connection, settings)
    except mysql.connector.Error as exc:
        raise ServerAway(f"MySQL did not answer ({exc}): run this again, it goes on") from None
    finally:
        await asyncio.to_thread(connection.close)


def _locks(settings: Settings) -> tuple[str, str]:
    return locks.leader_lock(settings), locks.snapshot_lock(settings)
