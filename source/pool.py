"""A pool of connections for short reads: a new connection for each read costs more than the read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import mysql.connector

from app.settings import Settings
from source.mysql import SESSION, Connection, connect
from source.secure_connection import SecureConnection

#: A connection is not used for longer, so that a change of the server's address, of its certificate
#: or of the account has an effect. The server ends an idle connection later (IDLE_TIMEOUT_S).
MAX_AGE_S = 30.0
#: A server that does not answer within this time to the reset of a connection counts as lost: the
#: connection may be broken without a sign.
RESET_TIMEOUT_S = 2


class _Idle(NamedTuple):
    connection: SecureConnection
    opened_at: float


class ConnectionPool:
    """At most `max_idle` open connections that wait for the next read. Threads may share it.

    It limits only the idle connections: a read that finds none opens a connection of its own.
    """

    def __init__(
        self,
        settings: Settings,
        max_idle: int,
        clock: Callable[[], float] = time.monotonic,
        connect: Callable[[Settings], SecureConnection] = connect,
    ) -> None:
        self._settings, self._max_idle, self._clock, self._connect = settings, max_idle, clock, connect
        self._idle: list[_Idle] = []
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self) -> Iterator[Connection]:
        """Yield a connection in the state in which `connect` opens it.

        After an error in the block, it is not used again. Raises DatabaseRefused, DatabaseAway.
        """
        entry = self._take() or _Idle(self._connect(self._settings), self._clock())
        try:
            yield entry.connection
        except BaseException:
            # The state of the connection is unknown: it may wait for the rest of a result.
            entry.connection.close()
            raise
        self._put(entry)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            entries, self._idle = self._idle, []
        for entry in entries:
            entry.connection.close()

    def _take(self) -> _Idle | None:
        """Return the connection that was used last and still works, or None."""
        while True:
            self._close_old()
            with self._lock:
                if not self._idle:
                    return None
                entry = self._idle.pop()
            if _reset(entry.connection):
                return entry
            entry.connection.close()

    def _put(self, entry: _Idle) -> None:
        self._close_old()
        with self._lock:
            has_room = len(self._idle) < self._max_idle
            if has_room:
                self._idle.append(entry)
        if not has_room:
            entry.connection.close()

    def _close_old(self) -> None:
        opened_after = self._clock() - MAX_AGE_S
        with self._lock:
            old = [entry for entry in self._idle if entry.opened_at < opened_after]
            self._idle = [entry for entry in self._idle if entry.opened_at >= opened_after]
        for entry in old:
            entry.connection.close()


def _reset(connection: SecureConnection) -> bool:
    """Give the session the state after `connect`; return False if the connection is broken."""
    connection.read_timeout = connection.write_timeout = RESET_TIMEOUT_S
    try:
        connection.reset_to(SESSION)
    except (mysql.connector.Error, OSError):
        return False
    connection.read_timeout = connection.write_timeout = None
    return True
