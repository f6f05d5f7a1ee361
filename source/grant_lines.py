"""The lines of SHOW GRANTS of MySQL and MariaDB."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

ALL = "ALL PRIVILEGES"
#: ALL PRIVILEGES never contains the right to give privileges to others.
GRANT_OPTION = "GRANT OPTION"

_SYNONYMS = {"ALL": ALL}
TOKEN = re.compile(
    r"`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\"|'(?:[^'\\]|\\.|'')*'|[^\s`\"'.,()@]+|[.,()@]", re.ASCII | re.DOTALL
)


@dataclass(frozen=True)
class Grant:
    """One line of SHOW GRANTS. Privileges are in upper case, columns in lower case."""

    grantee: str
    schema: str
    table: str
    privileges: frozenset[str]
    columns: Mapping[str, frozenset[str]] = field(default_factory=dict)
    is_revoke: bool = False


def parse_grant(tokens: list[str]) -> Grant | None:
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
    grantee = parse_names(tokens[end + 1 :])
    if not grantee:
        return None
    if _has_grant_option(words[end:]):
        names |= {GRANT_OPTION}
    return Grant(grantee[0], _unquote(target[0]), _unquote(target[2]), frozenset(names), columns, words[0] == "REVOKE")


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


def parse_names(tokens: list[str]) -> list[str]:
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


def _unquote(token: str) -> str:
    if token[:1] in "`\"'" and len(token) > 1:
        return token[1:-1].replace(token[0] * 2, token[0])
    return token
