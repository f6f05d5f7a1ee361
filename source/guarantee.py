"""Assessment of the guarantee that the source can give on this server: proven, timed or none."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import mysql.connector

from app.control.source_state import NONE, PROVEN, TIMED
from app.settings import WATERMARK, Settings
from source import transactions
from source.mysql import Connection, fetch_all, fetch_first, to_text


@dataclass(frozen=True)
class Guarantee:
    """A guarantee level and the reasons why it is not higher, each with the next step.

    proven: no committed change is missed; timed: no change of transactions shorter than
    `source_settle_s` is missed; none: changes may be missed.
    """

    level: str
    reasons: tuple[str, ...] = ()


def assess(connection: Connection, settings: Settings) -> Guarantee:
    """Derive the guarantee from the server's variables.

    Raises mysql.connector.Error, DatabaseAway.
    """
    none: list[str] = []
    timed: list[str] = []
    engine = read_engine(connection, settings)
    if engine != "InnoDB":
        none.append(f"the table's engine is {engine}: ALTER TABLE … ENGINE=InnoDB")
    if is_replica(connection):
        reason = "the server is a replica: set LATELY_MYSQL_HOST to its primary"
        # A replica does not list the transactions of its primary, and does not run triggers for
        # them.
        (timed if settings.source_mode == WATERMARK else none).append(reason)
    if read_variable(connection, "wsrep_on") in ("ON", "1"):
        timed.append("the server is a Galera node: it does not list the transactions of the other nodes")
    if settings.source_mode == WATERMARK:
        if int(read_variable(connection, "auto_increment_increment") or 1) > 1:
            timed.append("auto_increment_increment is above 1: other servers may assign smaller ids")
        timed += _transaction_list_problems(settings)
    if none:
        return Guarantee(NONE, (*none, *timed))
    return Guarantee(TIMED, tuple(timed)) if timed else Guarantee(PROVEN)


def read_engine(connection: Connection, settings: Settings) -> str:
    """Return the storage engine of the shop's table."""
    row = fetch_first(
        connection,
        tuple[str | bytes | None],
        "SELECT engine FROM information_schema.tables WHERE table_schema = %s AND table_name = %s",
        (settings.mysql_database, settings.source_table),
    )
    return to_text(row[0]) if row and row[0] else "unknown"


def is_replica(connection: Connection) -> bool:
    """Return whether the server replicates another server."""
    row = fetch_first(connection, tuple[str | bytes, str | bytes], "SHOW GLOBAL STATUS LIKE 'Slave_running'")
    if row and to_text(row[1]).upper() == "ON":
        return True
    for statement in ("SHOW REPLICA STATUS", "SHOW SLAVE STATUS"):
        # Some servers have only one of these statements, and some users may execute neither.
        with suppress(mysql.connector.Error):
            return bool(fetch_all(connection, tuple[object, ...], statement))
    return read_variable(connection, "read_only") in ("ON", "1")


def read_variable(connection: Connection, name: str) -> str | None:
    """Return a global variable of the server in upper case; None when it does not exist."""
    row = fetch_first(connection, tuple[str | bytes, str | bytes], "SHOW GLOBAL VARIABLES LIKE %s", (name,))
    return to_text(row[1]).upper() if row else None


def _transaction_list_problems(settings: Settings) -> list[str]:
    try:
        transactions.read_writing_transactions(settings)
    except transactions.TransactionListUnavailable as exc:
        return [str(exc)]
    except mysql.connector.Error as exc:
        return [f"open transactions cannot be listed ({exc.msg}): GRANT PROCESS ON *.* to the user"]
    return []
