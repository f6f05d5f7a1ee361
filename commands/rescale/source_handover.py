"""Holds the lock of the leading source: for a moment nobody publishes, and changes wait in the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import mysql.connector

from app.errors import DatabaseAway, ServerAway, StillRunning
from app.settings import Settings
from source import locks
from source.locks import HeldLock
from source.mysql import Connection, connect, read_server_time
from source.outbox_table import locate_outbox

#: Duration of one attempt to take a lock, which cannot be interrupted, and attempts for the leader's lock.
LOCK_TIMEOUT_S, LOCK_ATTEMPTS = 5, 12
#: The server frees the locks after this time without a statement: this process may be frozen or dead.
IDLE_S = 180


class HeldLocks:
    """The leader's lock, the handover lock and the snapshot lock, held by this process."""

    def __init__(self, connection: Connection, held_locks: list[HeldLock]) -> None:
        self._connection, self._held = connection, held_locks

    async def require(self) -> int:
        """Return the server's clock (microseconds) if the locks are still held. Raises ServerAway."""
        try:
            for lock in self._held:
                await asyncio.to_thread(lock.require)
            return await asyncio.to_thread(read_server_time, self._connection)
        except (mysql.connector.Error, DatabaseAway) as exc:
            raise ServerAway(f"a lock of the source was lost ({exc}): repeat the command; it continues") from None


@asynccontextmanager
async def hold_source_locks(settings: Settings) -> AsyncIterator[HeldLocks]:
    """Make the source stop publishing, and hold its lock. Raises StillRunning if it does not, ServerAway, BadSource."""
    connection = await asyncio.to_thread(connect, settings)
    held_locks: list[HeldLock] = []

    async def acquire(kind: str, busy: str, attempts: int = 1) -> None:
        for _ in range(attempts):
            lock = await asyncio.to_thread(locks.acquire, connection, settings, kind, LOCK_TIMEOUT_S)
            if lock is not None:
                held_locks.append(lock)
                await asyncio.to_thread(lock.set_idle_timeout, IDLE_S)
                return
        holder = await asyncio.to_thread(locks.find_holder, connection, settings, kind)
        raise StillRunning(f"{busy} ({holder or 'it has just ended'})")

    try:
        settings = await asyncio.to_thread(locate_outbox, connection, settings)
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION wait_timeout = {IDLE_S}")
        await acquire(locks.HANDOVER, "another process holds the lock for a handover: wait for its end, or stop it")
        await acquire(locks.SNAPSHOT, "a snapshot is running: wait for its end, or stop it; then repeat the command")
        busy = (
            f"the source did not stop publishing within {LOCK_TIMEOUT_S * LOCK_ATTEMPTS} s: "
            "stop it, and repeat the command"
        )
        await acquire(locks.LEADER, busy, LOCK_ATTEMPTS)
        yield HeldLocks(connection, held_locks)
    except mysql.connector.Error as exc:
        raise ServerAway(f"MySQL did not answer ({exc}): repeat the command; it continues") from None
    finally:
        for lock in held_locks:
            await asyncio.to_thread(lock.release)
        await asyncio.to_thread(connection.close)
