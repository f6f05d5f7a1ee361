"""The role of the shop's server: a primary, a replica, or a member of a group.

On a replica, triggers do not run for the changes of its primary, and the list of open transactions
lacks the transactions of the primary. Only a readable, empty list of the server's replications is
proof that it is a primary. Without the privilege to read the list, other facts can show that it is
a replica; MariaDB also has facts for every user that show that it replicates nothing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import mysql.connector
from mysql.connector import errorcode

from app.errors import BadSource
from source.accounts import current_account
from source.mysql import Connection, execute, fetch_all, fetch_first, fetch_row, is_mariadb, to_text
from source.privileges import Need, grant_statements
from source.quoting import quote_account

_OFF = (None, "", "OFF", "0")
#: The replications between the members of a group; their names start with this text.
_GROUP_CHANNEL = "group_replication_"
_SET_HOST = "set LATELY_MYSQL_HOST to"


@dataclass(frozen=True, kw_only=True)
class RoleFacts:
    """The facts about its role that the server tells this user."""

    is_mariadb: bool = False
    #: Names of the replications in which the server is a replica, running or stopped; None: the
    #: user may not read them.
    channels: tuple[str, ...] | None = ()
    #: The user's account in SQL, and the privilege that it lacks to read them.
    account: str = ""
    privilege: str = ""
    #: Whether the user sees threads or other facts of a running replication.
    is_replicating: bool = False
    #: Whether the server has executed transactions of other servers at any time, or a replication
    #: is configured, as far as the user can see that.
    has_replicated: bool = False
    #: Name of the group of MySQL's Group Replication; empty: none.
    group: str = ""
    is_single_primary: bool = True
    is_galera: bool = False
    #: The option that forbids writes to users without administrative privileges; empty: none.
    read_only: str = ""


def read_role(connection: Connection) -> RoleFacts:
    """Read the facts about the server's role. Raises mysql.connector.Error."""
    is_of_mariadb = is_mariadb(connection)
    channels = _read_channels(connection, is_of_mariadb)
    running = has_replicated = False
    # The list is the better evidence where the user may read it.
    if channels is None and is_of_mariadb:
        running = _read_status(connection, "Slaves_running") not in _OFF
        configured = (_read_status(connection, "Slave_heartbeat_period") or "0").strip("0.") != ""
        has_replicated = configured or bool(_read_mariadb_position(connection))
    elif channels is None:
        running, has_replicated = _has_replication_thread(connection), _has_foreign_transactions(connection)
    read_only = next(
        (name for name in ("super_read_only", "read_only") if read_variable(connection, name) not in _OFF), ""
    )
    group = read_variable(connection, "group_replication_group_name") or ""
    return RoleFacts(
        is_mariadb=is_of_mariadb,
        channels=channels,
        account=quote_account(current_account(connection)),
        privilege="SLAVE MONITOR" if is_of_mariadb else "REPLICATION CLIENT",
        # The members of a group have such threads, too.
        is_replicating=running and not group,
        has_replicated=has_replicated and not group,
        group=group,
        is_single_primary=read_variable(connection, "group_replication_single_primary_mode") not in _OFF,
        is_galera=read_variable(connection, "wsrep_on") not in _OFF,
        read_only=read_only,
    )


def find_replica_reason(facts: RoleFacts) -> str | None:
    """Return a reason with the next step if the server is a replica or a secondary, or None."""
    if facts.group and facts.is_single_primary and facts.read_only:
        return f"the server is a secondary of its replication group: {_SET_HOST} the primary of the group"
    other_primaries = [name for name in facts.channels or () if not name.startswith(_GROUP_CHANNEL)]
    if other_primaries or (facts.channels is None and facts.is_replicating):
        reset = "STOP ALL SLAVES; RESET SLAVE ALL" if facts.is_mariadb else "STOP REPLICA; RESET REPLICA ALL"
        return f"the server is a replica: {_SET_HOST} its primary, or if it has become the primary: {reset}"
    return None


def find_doubt(facts: RoleFacts) -> str | None:
    """Return a reason with the next step if the facts do not show whether it is a replica, or None."""
    if facts.channels is not None or (facts.is_mariadb and not facts.has_replicated and not facts.read_only):
        return None
    (grant,) = grant_statements([Need(facts.privilege)], facts.account)
    hint = ", and it has executed transactions of another server" if facts.has_replicated else ""
    return f"it is not known whether the server is a replica{hint}: {grant}"


def find_group_reason(facts: RoleFacts, reads_transactions: bool) -> str | None:
    """Return why the changes of other members of a group or cluster may be missed, or None.

    `reads_transactions` is whether the capture depends on the list of open transactions.
    """
    if facts.is_galera:
        return "the server is a Galera node: it does not list the transactions of the other nodes"
    if facts.group and not facts.is_single_primary:
        return (
            "the server is in a replication group with several primaries, whose transactions it does not list: "
            "SELECT group_replication_switch_to_single_primary_mode()"
        )
    if facts.group and reads_transactions:
        return (
            "the server is in a replication group, and a new primary does not list the transactions of the previous "
            "one: set LATELY_SOURCE_MODE=outbox"
        )
    return None


def find_write_block(connection: Connection) -> str | None:
    """Return the option of the server that forbids this user all writes, or None.

    Nothing is written. Raises mysql.connector.Error.
    """
    if read_variable(connection, "innodb_read_only") not in _OFF:
        return "innodb_read_only"
    try:
        execute(connection, "START TRANSACTION READ WRITE")
    except mysql.connector.Error as exc:
        if exc.errno != errorcode.ER_OPTION_PREVENTS_STATEMENT:
            raise
        return "super_read_only" if read_variable(connection, "super_read_only") not in _OFF else "read_only"
    execute(connection, "ROLLBACK")
    return None


def read_variable(connection: Connection, name: str) -> str | None:
    """Return a global variable of the server in upper case; None when it does not exist."""
    row = fetch_first(connection, tuple[str | bytes, str | bytes], "SHOW GLOBAL VARIABLES LIKE %s", (name,))
    return to_text(row[1]).upper() if row else None


def require_writable(connection: Connection) -> None:
    """Raise BadSource with the next step if the server forbids this user all writes."""
    option = find_write_block(connection)
    if option is not None:
        raise BadSource(f"the server is read-only ({option}): {next_step_for(option)}")


def require_no_replica(connection: Connection) -> None:
    """Raise BadSource with the next step if the facts show that the server is a replica."""
    reason = find_replica_reason(read_role(connection))
    if reason is not None:
        raise BadSource(reason)


def next_step_for(option: str) -> str:
    """Return the next step for an option that `find_write_block` has found."""
    # With read_only, MySQL also switches super_read_only off.
    off = "start the server without it" if option == "innodb_read_only" else "SET GLOBAL read_only = OFF"
    return f"{_SET_HOST} the primary, or {off}"


def _read_channels(connection: Connection, is_of_mariadb: bool) -> tuple[str, ...] | None:
    """Return the names of the server's replications; None if the user may read no list of them."""
    # MySQL 8.0.22 renamed the statement, MySQL 8.4 removed the old one. On MariaDB they show only
    # one of several replications.
    statements = ["SHOW ALL SLAVES STATUS"] if is_of_mariadb else ["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"]
    if not is_of_mariadb and read_variable(connection, "performance_schema") == "ON":
        statements.append("SELECT channel_name FROM performance_schema.replication_connection_configuration")
    for statement in statements:
        with suppress(mysql.connector.Error), connection.cursor() as cursor:
            cursor.execute(statement)
            rows: list[Any] = cursor.fetchall()
            names = [str(column[0]).lower() for column in cursor.description or ()]
            at = next(at for at, name in enumerate(names) if name in ("channel_name", "connection_name"))
            return tuple(to_text(row[at]) for row in rows)
    return None


def _read_status(connection: Connection, name: str) -> str | None:
    row = fetch_first(connection, tuple[str | bytes, str | bytes], "SHOW GLOBAL STATUS LIKE %s", (name,))
    return to_text(row[1]) if row else None


def _read_mariadb_position(connection: Connection) -> str:
    """Return the position of MariaDB's replication; empty if it has never replicated."""
    return to_text(fetch_row(connection, tuple[str | bytes], "SELECT @@global.gtid_slave_pos")[0])


def _has_replication_thread(connection: Connection) -> bool:
    """Return whether a thread of a replication is visible, for which the user needs PROCESS."""
    rows = fetch_all(connection, tuple[object, ...], "SHOW PROCESSLIST")
    return any(row[1] in ("system user", b"system user") for row in rows)


def _has_foreign_transactions(connection: Connection) -> bool:
    """Return whether MySQL has executed transactions that another server has numbered (GTID)."""
    executed, own = fetch_row(
        connection, tuple[str | bytes, str | bytes], "SELECT @@global.gtid_executed, @@global.server_uuid"
    )
    sources = {entry.strip().partition(":")[0].lower() for entry in to_text(executed).split(",") if entry.strip()}
    return bool(sources - {to_text(own).lower()})
