"""Assessment of the guarantee that the source can give on this server: proven, timed or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mysql.connector

from app.control.source_state import NONE, PROVEN, TIMED
from app.settings import WATERMARK, Settings
from source import transactions
from source.cascades import read_cascades
from source.mysql import Connection, fetch_first, to_text
from source.server_role import find_doubt, find_group_reason, find_replica_reason, read_role, read_variable


@dataclass(frozen=True)
class Guarantee:
    """A guarantee level and the reasons why it is not higher, each with the next step.

    proven: no committed change is missed; timed: no change of transactions shorter than
    `source_settle_s` is missed; none: changes may be missed. `unseen` are the kinds of changes that
    the triggers do not see on this server, at any level.
    """

    level: str
    reasons: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


def assess(connection: Connection, settings: Settings) -> Guarantee:
    """Derive the guarantee from the server's variables.

    Raises mysql.connector.Error, DatabaseAway.
    """
    none: list[str] = []
    timed: list[str] = []
    engine = read_engine(connection, settings)
    if engine != "InnoDB":
        none.append(f"the table's engine is {engine}: ALTER TABLE … ENGINE=InnoDB")
    role = read_role(connection)
    replica = find_replica_reason(role) or find_doubt(role)
    group = find_group_reason(role, settings.source_mode == WATERMARK)
    if replica is not None:
        # A replica does not list the transactions of its primary, and does not run triggers for
        # them.
        (timed if settings.source_mode == WATERMARK else none).append(replica)
    if group is not None:
        timed.append(group)
    unseen: tuple[str, ...] = ()
    if settings.source_mode == WATERMARK:
        if int(read_variable(connection, "auto_increment_increment") or 1) > 1:
            timed.append("auto_increment_increment is above 1: other servers may assign smaller ids")
        timed += _transaction_list_problems(settings)
    else:
        unseen = read_cascades(connection, settings).unseen
    level = NONE if none else TIMED if timed else PROVEN
    return Guarantee(level, (*none, *timed), unseen)


def with_problems(assessment: Guarantee, problems: Sequence[str]) -> Guarantee:
    """Return the guarantee of a capture with critical problems: none."""
    if not problems:
        return assessment
    return replace(assessment, level=NONE, reasons=tuple(dict.fromkeys((*problems, *assessment.reasons))))


def read_engine(connection: Connection, settings: Settings) -> str:
    """Return the storage engine of the shop's table."""
    row = fetch_first(
        connection,
        tuple[str | bytes | None],
        "SELECT engine FROM information_schema.tables WHERE table_schema = %s AND table_name = %s",
        (settings.mysql_database, settings.source_table),
    )
    return to_text(row[0]) if row and row[0] else "unknown"


def _transaction_list_problems(settings: Settings) -> list[str]:
    try:
        transactions.read_writing_transactions(settings)
    except transactions.TransactionListUnavailable as exc:
        return [str(exc)]
    except mysql.connector.Error as exc:
        return [f"open transactions cannot be listed ({exc.msg}): GRANT PROCESS ON *.* to the user"]
    return []
