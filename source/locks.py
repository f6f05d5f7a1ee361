"""Named locks in the shop's database for sources, snapshots and switches of generations.

The server frees a lock when the connection that holds it ends.
"""

from __future__ import annotations

from app.settings import OUTBOX, Settings
from source.mysql import Connection, fetch_row
from source.outbox_table import displayed_outbox

#: MySQL's limit for the name of a lock.
MAX_NAME_CHARACTERS = 64


def leader_lock(settings: Settings) -> str:
    """Return the name of the leader's lock; all generations of the topics share it."""
    return _lock_name("lately", settings, _captured_table(settings))


def handover_lock(settings: Settings) -> str:
    """Return the name of the lock by which another process requests the leader's lock.

    While it is held, the leading source ends and no other source acquires the leader's lock.
    """
    return _lock_name("lately-handover", settings, _captured_table(settings))


def snapshot_lock(settings: Settings) -> str:
    """Return the name of the lock of the process that takes a snapshot."""
    return _lock_name("lately-snapshot", settings, settings.source_table)


def acquire(connection: Connection, lock: str, within_s: int) -> bool:
    """Wait for a lock for at most `within_s` seconds; return whether it was acquired."""
    return _select_flag(connection, "SELECT GET_LOCK(%s, %s)", lock, within_s)


def is_held(connection: Connection, lock: str) -> bool:
    """Return whether any connection holds the lock."""
    return _select_flag(connection, "SELECT IS_USED_LOCK(%s) IS NOT NULL", lock)


def is_owned(connection: Connection, lock: str) -> bool:
    """Return whether this connection holds the lock."""
    return _select_flag(connection, "SELECT IS_USED_LOCK(%s) = CONNECTION_ID()", lock)


def _select_flag(connection: Connection, statement: str, *parameters: str | int) -> bool:
    return fetch_row(connection, tuple[int | None], statement, parameters)[0] == 1


def _captured_table(settings: Settings) -> str:
    return displayed_outbox(settings) if settings.source_mode == OUTBOX else settings.source_table


def _lock_name(kind: str, settings: Settings, table: str) -> str:
    # A long name is shortened after the kind, so that locks of different kinds stay different.
    return f"{kind}:" + f"{settings.mysql_database}.{table}"[-(MAX_NAME_CHARACTERS - len(kind) - 1) :]
