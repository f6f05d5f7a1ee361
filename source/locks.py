"""Locks for sources, snapshots and switches of generations. The server frees the lock of a process
when the connection that holds it ends.

With an outbox a lock is a row of a table (lock_table). In watermark mode the user may only read:
there it is a named lock (GET_LOCK), which every account of the server can take. While the outbox
is in the shop's database, a process also takes the named lock, because sources of earlier versions
only know that one; it can be removed in 0.3.0.
"""

from __future__ import annotations

import logging
import time

from app.errors import DatabaseAway
from app.settings import OUTBOX, Settings
from source import lock_table
from source.lock_table import HANDOVER, KINDS, LEADER, SNAPSHOT
from source.mysql import Connection, fetch_first, fetch_row, to_text
from source.outbox_table import displayed_outbox, is_in_shop_database

__all__ = ["HANDOVER", "LEADER", "SNAPSHOT", "HeldLock", "acquire", "find_holder", "lock_name"]

log = logging.getLogger(__name__)

#: MySQL's limit for the name of a lock.
MAX_NAME_CHARACTERS = 64
RETRY_PAUSE_S = 0.2

_NAME_PREFIXES = dict(zip(KINDS, ("lately", "lately-handover", "lately-snapshot"), strict=True))


class HeldLock:
    """A lock that this process holds until `release`, or until the server ends its connection."""

    def __init__(self, connection: Connection, name: str | None = None, *, is_own_connection: bool = True) -> None:
        self._connection, self._name, self._is_own_connection = connection, name, is_own_connection
        #: The connection that holds the row of the lock; None for a named lock.
        self.row_connection_id = connection.connection_id if name is None else None

    def require(self) -> None:
        """Check that the server still holds the lock, and keep its connection from being idle.

        Raises DatabaseAway, mysql.connector.Error.
        """
        statement = "SELECT 1" if self._name is None else "SELECT COALESCE(IS_USED_LOCK(%s) = CONNECTION_ID(), 0)"
        parameters = () if self._name is None else (self._name,)
        if fetch_row(self._connection, tuple[int], statement, parameters)[0] != 1:
            raise DatabaseAway(f"the lock {self._name} was lost: try again")

    def set_idle_timeout(self, seconds: int) -> None:
        """Let the server free the lock after this time without `require`."""
        with self._connection.cursor() as cursor:
            cursor.execute(f"SET SESSION wait_timeout = {seconds}")

    def release(self) -> None:
        """Free the lock; a named lock ends with the connection that took it."""
        if self._is_own_connection:
            self._connection.close()


def acquire(connection: Connection, settings: Settings, kind: str, within_s: float) -> HeldLock | None:
    """Wait for a lock for at most about `within_s` seconds; None: another process holds it.

    In watermark mode `connection` itself holds the lock. Raises BadSource, DatabaseAway,
    mysql.connector.Error.
    """
    name = lock_name(settings, kind)
    if not _uses_rows(connection, settings):
        is_acquired = _select_flag(connection, "SELECT GET_LOCK(%s, %s)", name, max(0, round(within_s)))
        return HeldLock(connection, name, is_own_connection=False) if is_acquired else None
    deadline = time.monotonic() + within_s
    while True:
        # A look at the row first, because the attempt opens connections.
        if not lock_table.is_locked(connection, settings, kind):
            keeper = lock_table.try_acquire(settings, kind)
            if keeper is not None and _acquire_former_lock(keeper, settings, kind):
                return HeldLock(keeper)
            if keeper is not None:
                keeper.close()
        if time.monotonic() >= deadline:
            return None
        time.sleep(RETRY_PAUSE_S)


def find_holder(connection: Connection, settings: Settings, kind: str) -> str | None:
    """Return a description of the process that holds a lock; None: the lock is free.

    Raises BadSource, mysql.connector.Error.
    """
    if _uses_rows(connection, settings):
        if lock_table.is_locked(connection, settings, kind):
            return lock_table.describe_holder(connection, settings, kind)
        if not is_in_shop_database(settings):
            return None
        holder = _find_named_holder(connection, lock_name(settings, kind))
        return None if holder is None or not holder.is_same_user else f"an earlier version of Lately: {holder}"
    holder = _find_named_holder(connection, lock_name(settings, kind))
    return None if holder is None else str(holder)


def lock_name(settings: Settings, kind: str) -> str:
    """Return the name of the named lock; all generations of the topics share it."""
    is_of_outbox = settings.source_mode == OUTBOX and kind != SNAPSHOT
    table = displayed_outbox(settings) if is_of_outbox else settings.source_table
    # A long name is shortened after the prefix, so that locks of different kinds stay different.
    prefix = _NAME_PREFIXES[kind]
    return f"{prefix}:" + f"{settings.mysql_database}.{table}"[-(MAX_NAME_CHARACTERS - len(prefix) - 1) :]


def _uses_rows(connection: Connection, settings: Settings) -> bool:
    return settings.source_mode == OUTBOX and lock_table.exists(connection, settings)


def _acquire_former_lock(keeper: Connection, settings: Settings, kind: str) -> bool:
    """Take the named lock of earlier versions; False: a source of an earlier version holds it.

    Another account that holds the lock has no effect: every account of the server can take it.
    """
    if not is_in_shop_database(settings):
        return True
    name = lock_name(settings, kind)
    if _select_flag(keeper, "SELECT GET_LOCK(%s, 0)", name):
        return True
    holder = _find_named_holder(keeper, name)
    if holder is not None and holder.is_same_user:
        return False
    log.warning("%s holds the named lock %s; it is no source of Lately and is ignored", holder, name)
    return True


class _NamedHolder:
    """The connection that holds a named lock; `client` is user@host if this user may see it."""

    def __init__(self, connection_id: int, client: str | None, is_same_user: bool) -> None:
        self._connection_id, self._client, self.is_same_user = connection_id, client, is_same_user

    def __str__(self) -> str:
        return f"connection {self._connection_id} of {self._client or 'another account'}"


def _find_named_holder(connection: Connection, name: str) -> _NamedHolder | None:
    (connection_id,) = fetch_row(connection, tuple[int | None], "SELECT IS_USED_LOCK(%s)", (name,))
    if connection_id is None:
        return None
    # Without the privilege PROCESS a user only sees connections of the same account.
    row = fetch_first(
        connection,
        tuple[str | bytes, str | bytes, int],
        "SELECT user, host, user = SUBSTRING_INDEX(USER(), '@', 1) FROM information_schema.processlist WHERE id = %s",
        (connection_id,),
    )
    if row is None:
        return _NamedHolder(connection_id, None, False)
    return _NamedHolder(connection_id, f"{to_text(row[0])}@{to_text(row[1])}", row[2] == 1)


def _select_flag(connection: Connection, statement: str, *parameters: str | int) -> bool:
    return fetch_row(connection, tuple[int | None], statement, parameters)[0] == 1
