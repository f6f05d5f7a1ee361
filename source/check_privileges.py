"""Checks of privileges: those of this user, and those of the definers of the triggers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from app.errors import BadSource
from app.settings import Settings
from source import triggers
from source.accounts import Account, current_account, read_account, read_session_grants
from source.columns import read_primary_key, read_shop_columns
from source.findings import FAILED, OK, WARNING, Finding
from source.mysql import Connection
from source.needs import before_outbox, grants_for, missing_of_definer, needed_columns, removal_needs, user_needs
from source.privileges import Grants, Need
from source.quoting import quote_account
from source.server_role import read_variable
from source.server_rules import find_server_problems

_LATER = "missing: `lately source setup` and `teardown` need it"


def check_triggers_allowed(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Check the server's variables that decide whether triggers can be created and work."""
    for problem in find_server_problems(connection, settings):
        yield Finding(problem.subject, FAILED, problem.problem, problem.fix)


def check_privileges(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Check the privileges of this user and of the definers. Raises mysql.connector.Error."""
    columns: tuple[str, ...] = ()
    with suppress(BadSource):
        key = [column.name for column in read_primary_key(connection, settings)]
        columns = needed_columns(read_shop_columns(connection, settings), key, settings)
    user, granted = current_account(connection), read_session_grants(connection)
    yield from _check_user(user, granted, settings, columns)
    installed = triggers.read_shop_triggers(connection, settings)
    definers = {trigger.definer for trigger in installed} or {settings.source_definer or user}
    for name in sorted(definers):
        yield from _check_definer(read_account(connection, name), settings, columns, bool(installed))
    if (
        read_variable(connection, "log_bin") == "ON"
        and read_variable(connection, "log_bin_trust_function_creators") not in ("ON", "1")
        and not granted.has(Need("SUPER"))
    ):
        is_complete = bool(installed) and not _has_missing(connection, settings)
        yield Finding(
            "triggers with binlog (1419)", WARNING if is_complete else FAILED,
            "on this server only a user with SUPER can create triggers"
            + (", and nobody else could renew the present ones" if is_complete else ""),
            "SET GLOBAL log_bin_trust_function_creators = 1",
        )  # fmt: skip


def _has_missing(connection: Connection, settings: Settings) -> bool:
    with suppress(BadSource):
        return bool(triggers.find_missing(connection, settings))
    return True


def _check_user(user: str, granted: Grants, settings: Settings, columns: tuple[str, ...]) -> Iterator[Finding]:
    needs = user_needs(settings, columns)
    missing = granted.missing(needs)
    yield from _missing_privileges(missing, user, granted, FAILED, "missing")
    if not missing:
        yield Finding("privileges", OK, f"{user} has {_listed(needs)}")
    later = granted.missing(removal_needs(settings))
    yield from _missing_privileges(later, user, granted, WARNING, _LATER)


def _missing_privileges(missing: list[Need], user: str, granted: Grants, result: str, detail: str) -> Iterator[Finding]:
    for need in missing:
        scope = need.schema if need.table == "*" else f"{need.schema}.{need.table}"
        (statement,) = grants_for([need], user, granted)
        yield Finding(f"privilege {need.privilege} on {scope}", result, detail, statement)


def _check_definer(
    account: Account, settings: Settings, columns: tuple[str, ...], is_installed: bool
) -> Iterator[Finding]:
    name = f"definer {account.name}"
    effect = "the shop's statements fail" if is_installed else "the shop's statements would fail"
    if account.exists is False:
        fix = "run `lately source setup`" if is_installed else "create it (`lately source setup --print-sql`)"
        yield Finding(name, FAILED, f"this account does not exist: {effect} (1449)", fix)
    elif account.grants is None:
        yield Finding(
            name, WARNING, "this user may not read whether it exists and what it may do",
            f"let an administrator execute: SHOW GRANTS FOR {quote_account(account.name)}",
        )  # fmt: skip
    else:
        missing = missing_of_definer(account, settings, columns)
        if missing:
            roles = f"; its roles {', '.join(account.grants.roles)} do not count" if account.grants.roles else ""
            grantable = missing if is_installed else before_outbox(missing, settings)
            fix = "; ".join(grants_for(grantable, account.name, account.grants))
            yield Finding(name, FAILED, f"it lacks {_listed(missing)}: {effect} (1142){roles}", fix)
        else:
            yield Finding(name, OK, "it exists, and has the privileges of the triggers")


def _listed(needs: Iterable[Need]) -> str:
    return ", ".join(dict.fromkeys(need.privilege for need in needs))
