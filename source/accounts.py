"""Accounts of the shop's server: the user of this connection and the definers of triggers."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import mysql.connector
from mysql.connector import errorcode

from source.mysql import Connection, fetch_all, fetch_row, is_mariadb, to_text
from source.privileges import Grants, parse_grants
from source.quoting import quote, quote_account


class Account(NamedTuple):
    """An account as user@host.

    `exists` and `grants` are None where this connection may not read them. `grants` contains what a
    trigger with this definer may do: MySQL activates its default roles, MariaDB no role.
    """

    name: str
    exists: bool | None
    grants: Grants | None


def current_account(connection: Connection) -> str:
    """Return the account of this connection as user@host. Raises mysql.connector.Error."""
    return to_text(fetch_row(connection, tuple[str | bytes], "SELECT CURRENT_USER()")[0])


def read_session_grants(connection: Connection) -> Grants:
    """Return the privileges of this connection, with those of its active roles.

    Raises mysql.connector.Error.
    """
    return parse_grants(
        _show_grants(connection, "SHOW GRANTS"),
        has_patterns=not _has_partial_revokes(connection),
        uses_roles=not is_mariadb(connection) and _active_role(connection) is not None,
    )


def read_account(connection: Connection, name: str) -> Account:
    """Return an account and its privileges as a definer. Raises mysql.connector.Error."""
    has_patterns = not _has_partial_revokes(connection)
    if same_account(name, current_account(connection)):
        if not is_mariadb(connection):
            return Account(name, True, read_session_grants(connection))
        user = name.rpartition("@")[0]
        lines = _show_grants(connection, "SHOW GRANTS")
        return Account(name, True, parse_grants(lines, has_patterns=has_patterns, only=user))
    statement = f"SHOW GRANTS FOR {quote_account(name)}"
    try:
        lines = _show_grants(connection, statement)
    except mysql.connector.Error as exc:
        return Account(name, False if exc.errno == errorcode.ER_NONEXISTING_GRANT else None, None)
    roles = [] if is_mariadb(connection) else _default_roles(connection, name)
    if roles:
        lines = _show_grants(connection, f"{statement} USING {', '.join(roles)}")
    elif is_mariadb(connection):
        with suppress(mysql.connector.Error):  # before MariaDB 10.11 there is no PUBLIC
            lines += _show_grants(connection, "SHOW GRANTS FOR PUBLIC")
    return Account(name, True, parse_grants(lines, has_patterns=has_patterns, uses_roles=bool(roles)))


def same_account(first: str, second: str) -> bool:
    """Return whether two names, as user@host, are one account; the host's case does not matter."""
    (first_user, _, first_host), (second_user, _, second_host) = first.rpartition("@"), second.rpartition("@")
    return first_user == second_user and first_host.lower() == second_host.lower()


def _show_grants(connection: Connection, statement: str) -> list[str]:
    return [to_text(line) for (line,) in fetch_all(connection, tuple[str | bytes], statement)]


def _has_partial_revokes(connection: Connection) -> bool:
    with suppress(mysql.connector.Error):
        return bool(fetch_row(connection, tuple[int], "SELECT @@global.partial_revokes")[0])
    return False


def _active_role(connection: Connection) -> str | None:
    (role,) = fetch_row(connection, tuple[str | bytes | None], "SELECT CURRENT_ROLE()")
    return None if role is None or to_text(role).upper() == "NONE" else to_text(role)


def _default_roles(connection: Connection, name: str) -> list[str]:
    """Return the quoted default roles of an account of MySQL; all its roles where all are used."""
    user, _, host = name.rpartition("@")
    table, columns = "mysql.default_roles", "default_role_user, default_role_host"
    where = "user = %s AND host = %s"
    with suppress(mysql.connector.Error):
        if fetch_row(connection, tuple[int], "SELECT @@global.activate_all_roles_on_login")[0]:
            table, columns, where = "mysql.role_edges", "from_user, from_host", "to_user = %s AND to_host = %s"
        rows = fetch_all(
            connection,
            tuple[str | bytes, str | bytes],
            f"SELECT {columns} FROM {table} WHERE {where}",
            (user, host),
        )
        return [f"{quote(to_text(role))}@{quote(to_text(role_host))}" for role, role_host in rows]
    return []
