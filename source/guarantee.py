"""What the source can promise on this server: proven, timed or none, and why not more."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import mysql.connector

from app.control.source_state import NONE, PROVEN, TIMED
from app.settings import WATERMARK, Settings
from source import transactions
from source.mysql import Connection, text


@dataclass(frozen=True)
class Guarantee:
    """proven: no committed change is missed; timed: only of transactions shorter than `source_settle_s`; none."""

    level: str
    #: Why it is not more, each with what would help.
    reasons: tuple[str, ...] = ()


def assess(connection: Connection, settings: Settings) -> Guarantee:
    """What can be promised, from what the server says of itself. Raises mysql.connector.Error, ServerAway."""
    none, timed = [], []
    engine = engine_of(connection, settings)
    if engine != "InnoDB":
        none.append(f"the table's engine is {engine}: ALTER TABLE … ENGINE=InnoDB")
    if is_replica(connection):
        reason = "the server is a replica: set LATELY_MYSQL_HOST to its primary"
        # Transactions of the primary do not show here; its triggers do not fire here.
        (timed if settings.source_mode == WATERMARK else none).append(reason)
    if variable(connection, "wsrep_on") in ("ON", "1"):
        timed.append("the server is a Galera node: transactions of the other nodes do not show here")
    if settings.source_mode == WATERMARK:
        if int(variable(connection, "auto_increment_increment") or 1) > 1:
            timed.append("auto_increment_increment is above 1: other servers may give smaller ids")
        timed += _blind(settings)
    if none:
        return Guarantee(NONE, (*none, *timed))
    return Guarantee(TIMED, tuple(timed)) if timed else Guarantee(PROVEN)


def engine_of(connection: Connection, settings: Settings) -> str:
    """The storage engine of the shop's table."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT engine FROM information_schema.tables WHERE table_schema = %s AND table_name = %s",
            (settings.mysql_database, settings.source_table),
        )
        found = cursor.fetchone()
    return text(found[0]) if found and found[0] else "unknown"


def is_replica(connection: Connection) -> bool:
    """Whether the server repeats what another one does."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Slave_running'")
        found = cursor.fetchone()
        if found and text(found[1]).upper() == "ON":
            return True
        for statement in ("SHOW REPLICA STATUS", "SHOW SLAVE STATUS"):
            # Not every server knows both, and not every user may ask.
            with suppress(mysql.connector.Error):
                cursor.execute(statement)
                return bool(cursor.fetchall())
    return variable(connection, "read_only") in ("ON", "1")


def variable(connection: Connection, name: str) -> str | None:
    """A variable of the server, None where it does not have it."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL VARIABLES LIKE %s", (name,))
        found = cursor.fetchone()
    return text(found[1]).upper() if found else None


def _blind(settings: Settings) -> list[str]:
    try:
        transactions.open_writers(settings)
    except transactions.NoProof as exc:
        return [str(exc)]
    except mysql.connector.Error as exc:
        return [f"open transactions cannot be seen ({exc.msg}): GRANT PROCESS ON *.* to the user"]
    return []
