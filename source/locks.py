"""Locks in the shop's database, for sources, snapshots and switches; the server frees them when the connection ends."""

from __future__ import annotations

from app.settings import OUTBOX, Settings
from source.mysql import Connection

#: MySQL takes no longer name of a lock.
LONGEST = 64


def of_leader(settings: Settings) -> str:
    """Whoever publishes the shop's changes holds it, whatever the generation of the topics."""
    return _named("lately", settings, _followed(settings))


def of_handover(settings: Settings) -> str:
    """Whoever holds it wants the leader's lock next: the source makes way, and no other takes that lock."""
    return _named("lately-handover", settings, _followed(settings))


def of_snapshot(settings: Settings) -> str:
    """Whoever takes a snapshot holds it."""
    return _named("lately-snapshot", settings, settings.source_table)


def take(connection: Connection, lock: str, within_s: int) -> bool:
    """Wait for a lock; whether this connection has it."""
    return _ask(connection, "SELECT GET_LOCK(%s, %s)", lock, within_s)


def taken(connection: Connection, lock: str) -> bool:
    """Whether anybody has it."""
    return _ask(connection, "SELECT IS_USED_LOCK(%s) IS NOT NULL", lock)


def holds(connection: Connection, lock: str) -> bool:
    """Whether this connection still has it."""
    return _ask(connection, "SELECT IS_USED_LOCK(%s) = CONNECTION_ID()", lock)


def _ask(connection: Connection, question: str, *values: object) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(question, values)
        return cursor.fetchone()[0] == 1


def _followed(settings: Settings) -> str:
    return settings.source_outbox if settings.source_mode == OUTBOX else settings.source_table


def _named(kind: str, settings: Settings, table: str) -> str:
    # Cut in front of the table, so that kinds stay apart.
    return f"{kind}:" + f"{settings.mysql_database}.{table}"[-(LONGEST - len(kind) - 1) :]
