"""Privileges of a MySQL or MariaDB account, from the lines of SHOW GRANTS. Pure: no connection.

The rules are those of the servers:

- A privilege is granted on everything (`*.*`), on a schema, on a table, or on columns of a table.
- The name of a schema is a pattern: `sh%` contains `shop`, and `my\\_shop` is `my_shop` only. If
  several patterns match, only one of them counts: the most specific one. For an account of MySQL
  that uses roles it is a name without wildcards, else the first pattern in the order of its text.
- With MySQL's `partial_revokes` the name of a schema is no pattern, and a line that starts with
  REVOKE takes a privilege on `*.*` away for one schema.
- MariaDB adds the privileges of roles to those of the account. MySQL lists and uses the patterns of
  both together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from source.grant_lines import ALL, GRANT_OPTION, TOKEN, Grant, parse_grant, parse_names
from source.quoting import quote

EVERY = "*"

#: Privileges that ALL PRIVILEGES on a schema or a table does not contain.
_GLOBAL_ONLY = {
    "SUPER", "PROCESS", "RELOAD", "FILE", "SHUTDOWN", "CREATE USER", "REPLICATION CLIENT", "REPLICATION SLAVE",
    "SET USER", "SET_USER_ID", "SET_ANY_DEFINER", "BINLOG MONITOR", "SLAVE MONITOR", "REPLICA MONITOR", "BINLOG ADMIN",
    "READ_ONLY ADMIN", "CONNECTION_ADMIN", "CONNECTION ADMIN", "ALLOW_NONEXISTENT_DEFINER", "SYSTEM_USER",
}  # fmt: skip


class Need(NamedTuple):
    """A privilege on a schema (table "*"), a table, or columns of a table; schema "*": everything."""

    privilege: str
    schema: str = EVERY
    table: str = EVERY
    columns: tuple[str, ...] = ()


class Grants:
    """The privileges of an account and of its roles."""

    def __init__(self, grants: Sequence[Grant], roles: Sequence[str], has_patterns: bool, uses_roles: bool) -> None:
        self._grants, self._has_patterns, self._uses_roles = grants, has_patterns, uses_roles
        #: Names of the roles that are granted to the account or to its roles.
        self.roles = tuple(roles)

    def has(self, need: Need) -> bool:
        """Return whether one of the account and its roles has a privilege, or all together."""
        missing = set(need.columns)
        for grantee in dict.fromkeys(grant.grantee for grant in self._grants):
            of_grantee = [grant for grant in self._grants if grant.grantee == grantee]
            if self._grantee_has(of_grantee, need):
                return True
            missing -= _columns_with(of_grantee, need)
        return bool(need.columns) and not missing

    def missing(self, needs: Iterable[Need]) -> list[Need]:
        """Return the privileges that the account does not have, in their order."""
        return [need for need in needs if not self.has(need)]

    def scope_for(self, need: Need, account: str) -> tuple[str, list[str]]:
        """Return the object of a GRANT statement, and privileges to repeat in the statement.

        A grant on the name of a schema hides those on a pattern that contains the name.
        """
        if need.schema == EVERY:
            return "*.*", []
        if need.table != EVERY:
            return f"{quote(need.schema)}.{quote(need.table)}", []
        (user,) = parse_names(TOKEN.findall(account))
        of_user = [grant for grant in self._grants if grant.grantee == user and not grant.is_revoke]
        present = self._schema_grants(of_user, need.schema)
        name = re.sub(r"([_%])", r"\\\1", need.schema) if self._has_patterns else need.schema
        if present and (self._uses_roles or _unescape(present[0].schema).lower() == need.schema.lower()):
            name, present = present[0].schema, []
        names = {privilege for grant in present for privilege in grant.privileges} - {GRANT_OPTION}
        return f"{quote(name)}.*", sorted(names)

    def _grantee_has(self, grants: list[Grant], need: Need) -> bool:
        is_revoked = any(
            grant.is_revoke and need.schema.lower() == grant.schema.lower() and _contains(grant, need.privilege)
            for grant in grants
        )
        grants = [grant for grant in grants if not grant.is_revoke]
        if not is_revoked and any(grant.schema == EVERY and _contains(grant, need.privilege) for grant in grants):
            return True
        if need.schema == EVERY:
            return False
        if any(_contains(grant, need.privilege) for grant in self._schema_grants(grants, need.schema)):
            return True
        return need.table != EVERY and any(
            (grant.schema.lower(), grant.table.lower()) == (need.schema.lower(), need.table.lower())
            and _contains(grant, need.privilege)
            for grant in grants
        )

    def _schema_grants(self, grants: list[Grant], schema: str) -> list[Grant]:
        """Return the grants of the one pattern that counts for the schema."""
        on_schemas = [grant for grant in grants if grant.table == EVERY and grant.schema != EVERY]
        if not self._has_patterns:
            return [grant for grant in on_schemas if _unescape(grant.schema).lower() == schema.lower()]
        matching = [grant for grant in on_schemas if matches(grant.schema, schema)]
        if self._uses_roles:
            patterns = sorted({grant.schema for grant in matching}, key=lambda name: (_is_pattern(name), name))
        else:
            patterns = sorted({grant.schema for grant in matching}, key=_specificity, reverse=True)
        return [grant for grant in matching if grant.schema in patterns[:1]]


def parse_grants(
    lines: Iterable[str], *, has_patterns: bool = True, uses_roles: bool = False, only: str | None = None
) -> Grants:
    """Parse the lines of SHOW GRANTS; lines of other kinds, such as GRANT PROXY, are ignored.

    `has_patterns` is False on a server with `partial_revokes`. `uses_roles` is True for an account
    of MySQL with an active role. `only` is a name: grants to other names, such as the roles that
    MariaDB lists, are ignored, except those to PUBLIC.
    """
    grants: list[Grant] = []
    roles: list[str] = []
    for line in lines:
        tokens = TOKEN.findall(line)
        if not tokens or tokens[0].upper() not in ("GRANT", "REVOKE"):
            continue
        words = [token.upper() for token in tokens]
        if "ON" in words:
            grant = parse_grant(tokens)
            if grant is not None and (only is None or grant.grantee.lower() in (only.lower(), "public")):
                grants.append(grant)
        elif "TO" in words:
            roles += [name for name in parse_names(tokens[1 : words.index("TO")]) if name not in roles]
    return Grants(grants, roles, has_patterns, uses_roles)


def matches(pattern: str, name: str) -> bool:
    """Return whether a schema's name is one of a pattern with %, _ and the escape character \\."""
    regex = "".join(
        re.escape(part[1:]) if len(part) == 2 else {"%": ".*", "_": "."}.get(part, re.escape(part))
        for part in re.findall(r"\\.|.", pattern, re.DOTALL)
    )
    return re.fullmatch(regex, name, re.IGNORECASE | re.DOTALL) is not None


def grant_statements(needs: Iterable[Need], account: str, granted: Grants | None = None) -> list[str]:
    """Return the GRANT statements that give an account, which is quoted, the privileges.

    `granted` are its present privileges: they stay, although only one pattern counts for a schema.
    """
    granted = granted or Grants((), (), True, False)
    scopes: dict[str, list[str]] = {}
    for need in needs:
        columns = f" ({', '.join(map(quote, need.columns))})" if need.columns else ""
        scope, present = granted.scope_for(need, account)
        scopes.setdefault(scope, present).append(need.privilege + columns)
    return [
        f"GRANT {', '.join(dict.fromkeys(privileges))} ON {scope} TO {account}" for scope, privileges in scopes.items()
    ]


def _contains(grant: Grant, privilege: str) -> bool:
    if privilege in grant.privileges:
        return True
    if ALL not in grant.privileges or privilege == GRANT_OPTION:
        return False
    return grant.schema == EVERY or privilege not in _GLOBAL_ONLY


def _columns_with(grants: list[Grant], need: Need) -> set[str]:
    """Return those of the needed columns for which a table's grants give the privilege."""
    with_privilege: set[str] = set()
    for grant in grants:
        if (grant.schema.lower(), grant.table.lower()) == (need.schema.lower(), need.table.lower()):
            with_privilege |= grant.columns.get(need.privilege, frozenset())
    return {name for name in need.columns if name.lower() in with_privilege}


def _specificity(pattern: str) -> int:
    """Return the position of the first wildcard; a pattern without one is the most specific."""
    match = re.match(r"(?:\\.|[^%_\\])*", pattern, re.DOTALL)
    length = match.end() if match else 0
    return len(pattern) + 1_000 if length == len(pattern) else length + 1


def _is_pattern(name: str) -> bool:
    return re.search(r"[%_\\]", name) is not None


def _unescape(pattern: str) -> str:
    return re.sub(r"\\([_%\\])", r"\1", pattern)
