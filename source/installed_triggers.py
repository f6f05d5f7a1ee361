"""Triggers in the shop's database that write to the outbox, whatever their names and tables are.

A table that is renamed keeps its triggers, and tools for online schema changes give them other
names. Therefore Lately recognizes its triggers by the table into which their bodies insert.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from app.settings import Settings
from source.mysql import Connection, fetch_all, to_text
from source.quoting import quote

#: The events of the three triggers.
EVENTS = ("delete", "update", "insert")

_NAME = r"(`(?:[^`]|``)+`|[\w$]+)"
_INSERT = re.compile(rf"\bINSERT\s+(?:IGNORE\s+)?INTO\s+(?:{_NAME}\s*\.\s*)?{_NAME}", re.IGNORECASE)
_FROM = re.compile(rf"\bFROM\s+(?:{_NAME}\s*\.\s*)?{_NAME}", re.IGNORECASE)

_COLUMNS = "trigger_schema, trigger_name, event_object_table, event_manipulation, definer, action_statement, created"
#: Schemas in which no shop has tables.
_SYSTEM_SCHEMAS = "'mysql', 'sys', 'performance_schema', 'information_schema'"


class InstalledTrigger(NamedTuple):
    """A trigger that writes to the outbox.

    `event` is insert, update or delete; `definer` is user@host; the body has single spaces.
    """

    schema: str
    name: str
    table: str
    event: str
    definer: str
    body: str
    #: When it was created, as text; renaming and altering its table do not change the time.
    created: str = ""

    @property
    def qualified_name(self) -> str:
        """The trigger's name in SQL; a trigger is in the schema of its table."""
        return f"{quote(self.schema)}.{quote(self.name)}"

    @property
    def tables_read(self) -> set[str]:
        """The tables from which the body selects, without their schemas, in lower case."""
        return {_unquote(name).lower() for _, name in _FROM.findall(self.body)}


def read_triggers(
    connection: Connection,
    settings: Settings,
    *,
    everywhere: bool = False,
    table: str | None = None,
    outboxes: set[tuple[str, str]] | None = None,
) -> list[InstalledTrigger]:
    """Return the triggers that write to an outbox, sorted by table and name.

    By default the triggers of the shop's database; `everywhere`: those of the whole server;
    `table`: those of one table, which is faster in a database with thousands of tables.
    `outboxes` contains (schema, table) of other outboxes than the one of the settings. The list
    contains only triggers that the user may see: those of tables for which it has the privilege
    TRIGGER. Raises mysql.connector.Error.
    """
    condition = f"trigger_schema NOT IN ({_SYSTEM_SCHEMAS})" if everywhere else "trigger_schema = %s"
    parameters = [] if everywhere else [settings.mysql_database]
    if table is not None:
        condition += " AND event_object_table = %s"
        parameters.append(table)
    rows = fetch_all(
        connection,
        tuple[str | bytes, str | bytes, str | bytes, str | bytes, str | bytes, str | bytes, datetime | None],
        f"SELECT {_COLUMNS} FROM information_schema.triggers WHERE {condition}",
        parameters,
    )
    expected = {(schema.lower(), table.lower()) for schema, table in outboxes or {settings.outbox}}
    installed = []
    for *texts, created in rows:
        schema, name, table, event, definer, body = map(to_text, texts)
        if expected & find_inserts(body, schema):
            trigger = InstalledTrigger(schema, name, table, event.lower(), definer, normalize(body), str(created))
            installed.append(trigger)
    return sorted(installed, key=lambda trigger: (trigger.schema, trigger.table, trigger.name))


def find_inserts(body: str, default_schema: str) -> set[tuple[str, str]]:
    """Return (schema, table) in lower case of each table into which a trigger's body inserts."""
    return {
        ((_unquote(schema) if schema else default_schema).lower(), _unquote(table).lower())
        for schema, table in _INSERT.findall(body)
    }


def normalize(body: str) -> str:
    """Return a trigger's body with single spaces."""
    return " ".join(body.split())


def _unquote(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name
