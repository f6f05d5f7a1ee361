"""Holds the lock of the leading source: for a moment nobody publishes, and changes wait in the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import mysql.connector

from app.errors import ServerAway, StillRunning
from app.settings import Settings
from source import locks
from source.mysql import Connection, connect, read_server_time
from source.outbox_table import locate_outbox

#: Duration of one attempt to take a lock, which cannot be interrupted, and attempts for the leader's lock.
LOCK_TIMEOUT_S, LOCK_ATTEMPTS = 5, 12
#: The server frees the locks after this time without a statement: this process may be frozen or dead.
IDLE_S = 180


class HeldLocks:
    """The leader's lock and the snapshot lock, held by this process."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection, self._settings = connection, settings

    async def require(self) -> int:
        """Return the server's clock (microseconds) if the locks are still held. Raises ServerAway."""
        owned = [await asyncio.to_thread(locks.is_owned, self._connection, lock) for lock in _locks(self._settings)]
        if not all(owned):
            raise ServerAway("the connection with the locks was lost: repeat the command; it continues")
        return await asyncio.to_thread(read_server_time, self._connection)


@asynccontextmanager
async def hold_source_locks(settings: Settings) -> AsyncIterator[HeldLocks]:
    """Make the source stop publishing, and hold its lock. Raises StillRunning if it does not, ServerAway, BadSource."""
    connection = await asyncio.to_thread(connect, settings)
    try:
        settings = await asyncio.to_thread(locate_outbox, connection, settings)
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION wait_timeout = {IDLE_S}")
        leader_lock, snapshot_lock = _locks(settings)
        if not await asyncio.to_thread(locks.acquire, connection, locks.handover_lock(settings), LOCK_TIMEOUT_S):
            raise StillRunning("another `lately rescale` holds the lock: wait for its end, or stop it")
        if not await asyncio.to_thread(locks.acquire, connection, snapshot_lock, LOCK_TIMEOUT_S):
            raise StillRunning("a snapshot is running: wait for its end, or stop it; then repeat the command")
        for _ in range(LOCK_ATTEMPTS):
            if await asyncio.to_thread(locks.acquire, connection, leader_lock, LOCK_TIMEOUT_S):
                break
        else:
            raise StillRunning(
                f"the source did not stop publishing within {LOCK_TIMEOUT_S * LOCK_ATTEMPTS} s: "
                "stop it, and repeat the command"
            )
        yield HeldLocks(connection, settings)
    except mysql.connector.Error as exc:
        raise ServerAway(f"MySQL did not answer ({exc}): repeat the command; it continues") from None
    finally:
        await asyncio.to_thread(connection.close)


def _locks(settings: Settings) -> tuple[str, str]:
    return locks.leader_lock(settings), locks.snapshot_lock(settings)
