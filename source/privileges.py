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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

ALL = "ALL PRIVILEGES"
EVERY = "*"

#: Privileges that ALL PRIVILEGES on a schema or a table does not contain.
_GLOBAL_ONLY = {
    "SUPER", "PROCESS", "RELOAD", "FILE", "SHUTDOWN", "CREATE USER", "REPLICATION CLIENT", "REPLICATION SLAVE",
    "SET USER", "SET_USER_ID", "SET_ANY_DEFINER", "BINLOG MONITOR", "SLAVE MONITOR", "REPLICA MONITOR", "BINLOG ADMIN",
    "READ_ONLY ADMIN", "CONNECTION_ADMIN", "CONNECTION ADMIN", "ALLOW_NONEXISTENT_DEFINER", "SYSTEM_USER",
}  # fmt: skip
#: ALL PRIVILEGES never contains the right to give privileges to others.
_GRANT_OPTION = "GRANT OPTION"
_SYNONYMS = {"ALL": ALL}

_TOKEN = re.compile(
    r"`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\"|'(?:[^'\\]|\\.|'')*'|[^\s`\"'.,()@]+|[.,()@]", re.ASCII | re.DOTALL
)


class Need(NamedTuple):
    """A privilege on a schema (table "*"), a table, or columns of a table; schema "*": everything."""

    privilege: str
    schema: str = EVERY
    table: str = EVERY
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Grant:
    """One line of SHOW GRANTS. Privileges are in upper case, columns in lower case."""

    grantee: str
    schema: str
    table: str
    privileges: frozenset[str]
    columns: Mapping[str, frozenset[str]] = field(default_factory=dict)
    is_revoke: bool = False


class Grants:
    """The privileges of an account and of its roles."""

    def __init__(self, grants: Sequence[_Grant], roles: Sequence[str], has_patterns: bool, uses_roles: bool) -> None:
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

    def _grantee_has(self, grants: list[_Grant], need: Need) -> bool:
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

    def _schema_grants(self, grants: list[_Grant], schema: str) -> list[_Grant]:
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
    grants: list[_Grant] = []
    roles: list[str] = []
    for line in lines:
        tokens = _TOKEN.findall(line)
        if not tokens or tokens[0].upper() not in ("GRANT", "REVOKE"):
            continue
        words = [token.upper() for token in tokens]
        if "ON" in words:
            grant = _parse_grant(tokens)
            if grant is not None and (only is None or grant.grantee.lower() in (only.lower(), "public")):
                grants.append(grant)
        elif "TO" in words:
            roles += [name for name in _parse_names(tokens[1 : words.index("TO")]) if name not in roles]
    return Grants(grants, roles, has_patterns, uses_roles)


def matches(pattern: str, name: str) -> bool:
    """Return whether a schema's name is one of a pattern with %, _ and the escape character \\."""
    regex = "".join(
        re.escape(part[1:]) if len(part) == 2 else {"%": ".*", "_": "."}.get(part, re.escape(part))
        for part in re.findall(r"\\.|.", pattern, re.DOTALL)
    )
    return re.fullmatch(regex, name, re.IGNORECASE | re.DOTALL) is not None


def grant_statements(needs: Iterable[Need], account: str, *, has_patterns: bool = True) -> list[str]:
    """Return the GRANT statements that give an account, which is quoted, the privileges."""
    scopes: dict[tuple[str, str], list[str]] = {}
    for need in needs:
        columns = f" ({', '.join(map(quote_name, need.columns))})" if need.columns else ""
        scopes.setdefault((need.schema, need.table), []).append(need.privilege + columns)
    return [
        f"GRANT {', '.join(dict.fromkeys(privileges))} ON {_scope(schema, table, has_patterns)} TO {account}"
        for (schema, table), privileges in scopes.items()
    ]


def quote_account(account: str) -> str:
    """Return user@host in SQL, with both parts quoted."""
    user, _, host = account.rpartition("@")
    return "@".join("'" + part.replace("\\", "\\\\").replace("'", "''") + "'" for part in (user, host))


def quote_name(name: str) -> str:
    """Return a name in backticks."""
    return "`" + name.replace("`", "``") + "`"


def _scope(schema: str, table: str, has_patterns: bool) -> str:
    if schema == EVERY:
        return "*.*"
    if table == EVERY:
        escaped = re.sub(r"([_%])", r"\\\1", schema) if has_patterns else schema
        return f"{quote_name(escaped)}.*"
    return f"{quote_name(schema)}.{quote_name(table)}"


def _parse_grant(tokens: list[str]) -> _Grant | None:
    """Parse a line with ON; None if it is about another kind of object than schemas and tables."""
    words = [token.upper() for token in tokens]
    start = words.index("ON")
    names, columns = _parse_privileges(tokens[1:start])
    end = next((i for i in range(start, len(words)) if words[i] in ("TO", "FROM")), None)
    if end is None:
        return None
    target = tokens[start + 1 : end]
    if target and target[0].upper() == "TABLE" and len(target) > 1 and target[1] != ".":
        target = target[1:]
    if "." not in target or len(target) != 3:
        return None  # FUNCTION, PROCEDURE, PACKAGE; PROXY
    grantee = _parse_names(tokens[end + 1 :])
    if not grantee:
        return None
    if _has_grant_option(words[end:]):
        names |= {_GRANT_OPTION}
    return _Grant(grantee[0], _unquote(target[0]), _unquote(target[2]), frozenset(names), columns, words[0] == "REVOKE")


def _parse_privileges(tokens: list[str]) -> tuple[set[str], dict[str, frozenset[str]]]:
    """Return the privileges without columns, and privilege -> columns of the others."""
    names: set[str] = set()
    columns: dict[str, frozenset[str]] = {}
    words: list[str] = []
    inside: list[str] | None = None
    for part in [*tokens, ","]:
        if part == "(":
            inside = []
        elif part == ")" and inside is not None:
            columns[" ".join(words).upper()] = frozenset(_unquote(name).lower() for name in inside)
            words, inside = [], None
        elif inside is not None:
            inside += [part] if part != "," else []
        elif part != ",":
            words.append(part)
        elif words:
            name = " ".join(words).upper()
            names.add(_SYNONYMS.get(name, name))
            words = []
    return names, columns


def _parse_names(tokens: list[str]) -> list[str]:
    """Return the names of accounts or roles, without their hosts, up to the next clause."""
    names: list[str] = []
    i = 0
    while i < len(tokens):
        names.append(_unquote(tokens[i]))
        i += 3 if tokens[i + 1 : i + 2] == ["@"] else 1
        if tokens[i : i + 1] != [","]:
            break
        i += 1
    return names


def _has_grant_option(words: list[str]) -> bool:
    return any(words[i : i + 3] == ["WITH", "GRANT", "OPTION"] for i in range(len(words)))


def _contains(grant: _Grant, privilege: str) -> bool:
    if privilege in grant.privileges:
        return True
    if ALL not in grant.privileges or privilege == _GRANT_OPTION:
        return False
    return grant.schema == EVERY or privilege not in _GLOBAL_ONLY


def _columns_with(grants: list[_Grant], need: Need) -> set[str]:
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


def _unquote(token: str) -> str:
    if token[:1] in "`\"'" and len(token) > 1:
        return token[1:-1].replace(token[0] * 2, token[0])
    return token
