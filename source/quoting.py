"""Names and accounts in SQL statements."""

from __future__ import annotations


def quote(name: str) -> str:
    """Return a name in backticks."""
    return "`" + name.replace("`", "``") + "`"


def quote_account(account: str) -> str:
    """Return user@host in SQL, with both parts quoted. Without a host it is a role of MariaDB."""
    user, _, host = account.rpartition("@")
    parts = (user, host) if host else (user,)
    return "@".join("'" + part.replace("\\", "\\\\").replace("'", "''") + "'" for part in parts)
