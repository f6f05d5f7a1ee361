"""The least privileges of the user of Lately and of the definer of its triggers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.settings import Settings
from source.accounts import Account
from source.columns import Columns
from source.privileges import EVERY, Grants, Need, grant_statements
from source.quoting import quote_account

#: The columns of the outbox that the triggers fill.
_FILLED = ("event_id", "aggregateid", "type", "traceparent", "payload")
#: Privileges in the schema of the outbox: the source reads and deletes rows, setup creates tables
#: and tries a trigger, and teardown drops them.
_OUTBOX_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "LOCK TABLES")
#: In MySQL only with this privilege a server can prove that it is no replica.
ROLE_NEED = Need("REPLICATION CLIENT")
_LATER_PRIVILEGES = ("DROP", "TRIGGER")


def needed_columns(columns: Columns, key: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """Return the names of the shop's columns that the triggers read."""
    names = [column.name for column in columns.values()] + list(key)
    if settings.traceparent_column is not None:
        names.append(settings.traceparent_column)
    return tuple(dict.fromkeys(names))


def user_needs(settings: Settings, columns: tuple[str, ...]) -> list[Need]:
    """Return the privileges without which `lately source` and its setup do not work."""
    shop, table, outbox = settings.mysql_database, settings.source_table, settings.outbox.schema
    return [
        Need("SELECT", shop, table, columns),
        Need("TRIGGER", shop, table),
        Need("LOCK TABLES", shop),
        *(Need(privilege, outbox) for privilege in _OUTBOX_PRIVILEGES),
    ]


def removal_needs(settings: Settings) -> list[Need]:
    """Return the privileges to try a trigger before it is created, and to remove everything."""
    return [Need(privilege, settings.outbox.schema) for privilege in _LATER_PRIVILEGES]


def definer_needs(settings: Settings, columns: tuple[str, ...]) -> list[Need]:
    """Return the privileges that the definer of the triggers needs: no others."""
    shop, table = settings.mysql_database, settings.source_table
    return [
        Need("SELECT", shop, table, columns),
        Need("TRIGGER", shop, table),
        Need("INSERT", *settings.outbox, _FILLED),
    ]


def missing_of_definer(account: Account, settings: Settings, columns: tuple[str, ...]) -> list[Need]:
    """Return what a definer lacks as far as it is known; nothing when it cannot be read."""
    return [] if account.grants is None else account.grants.missing(definer_needs(settings, columns))


def grants_for(needs: Iterable[Need], account: str, granted: Grants | None = None) -> list[str]:
    """Return the GRANT statements for user@host, on whole tables; `granted` is what it has."""
    return grant_statements((need._replace(columns=()) for need in needs), quote_account(account), granted)


def before_outbox(needs: Iterable[Need], settings: Settings) -> list[Need]:
    """Return needs that can be granted before the outbox exists: those on its schema."""
    return [need._replace(table=EVERY, columns=()) if need[1:3] == settings.outbox else need for need in needs]
