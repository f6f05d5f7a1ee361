"""The shop's columns: which of them are ours, and how SQL makes the JSON of an event's data from them."""

from __future__ import annotations

from app.errors import BadSource
from app.settings import COLUMNS, OPTIONAL_COLUMNS, Settings
from source.mysql import Connection, text

_INTEGERS = {"tinyint", "smallint", "mediumint", "int", "bigint"}
_TIMES = {"datetime", "timestamp"}
_PRICES = {*_INTEGERS, "decimal", "float", "double"}
_BINARY = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "bit", "geometry"}

#: Lately's column name -> (the shop's column name, its data type).
Columns = dict[str, tuple[str, str]]


def shop_columns(connection: Connection, settings: Settings) -> Columns:
    """The columns of the shop's table, without the optional ones it lacks.

    Raises BadSource when the table or a column is missing, or a column has a type that cannot be an event's.
    """
    for _, problem, fix in problems_of(connection, settings):
        raise BadSource(f"{problem}: {fix}")
    found = _found(connection, settings)
    return {ours: found[theirs.lower()] for ours, theirs in settings.columns.items() if theirs.lower() in found}


def problems_of(connection: Connection, settings: Settings) -> list[tuple[str, str, str]]:
    """What is wrong with the shop's table and columns: (what, the problem, what to do)."""
    table = f"{settings.mysql_database}.{settings.source_table}"
    found = _found(connection, settings)
    if not found:
        fix = "create it, or set LATELY_SOURCE_TABLE and LATELY_MYSQL_DATABASE"
        return [("table", f"there is no table {table}", fix)]
    problems = []
    for ours, theirs in settings.columns.items():
        if theirs.lower() not in found:
            if ours not in OPTIONAL_COLUMNS or ours != theirs:
                fix = f"name the one that holds {ours} in LATELY_SOURCE_COLUMNS, as {ours}=its_name"
                problems.append((f"column {ours}", f"table {table} has no column {theirs}", fix))
            continue
        name, kind = found[theirs.lower()]
        what = f"column {name} of {table} is of type {kind}, but {ours}"
        if ours == "ordered_at" and kind not in _TIMES:
            problems.append((f"column {ours}", f"{what} must be a DATETIME or TIMESTAMP", "change its type"))
        elif ours == "price" and kind not in _PRICES:
            problems.append((f"column {ours}", f"{what} must be a DECIMAL or another number", "change its type"))
        elif kind in _BINARY:
            fix = "add a generated column, such as HEX of it, and name that one in LATELY_SOURCE_COLUMNS"
            problems.append((f"column {ours}", f"{what} must be text or a number", fix))
    theirs = settings.traceparent_column
    if theirs is not None and theirs.lower() not in found:
        fix = "add it, or leave traceparent out of LATELY_SOURCE_COLUMNS"
        problems.append(("column traceparent", f"table {table} has no column {theirs}", fix))
    return problems


def _found(connection: Connection, settings: Settings) -> Columns:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
            (settings.mysql_database, settings.source_table),
        )
        return {text(name).lower(): (text(name), text(kind).lower()) for name, kind in cursor.fetchall()}


def primary_key(connection: Connection, settings: Settings) -> list[tuple[str, str]]:
    """The columns of the shop's primary key in its order, each with its data type; none where it has no key."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT k.column_name, c.data_type FROM information_schema.statistics k JOIN information_schema.columns c"
            " USING (table_schema, table_name, column_name)"
            " WHERE table_schema = %s AND table_name = %s AND index_name = 'PRIMARY' ORDER BY seq_in_index",
            (settings.mysql_database, settings.source_table),
        )
        return [(text(name), text(kind).lower()) for name, kind in cursor.fetchall()]


def payload(columns: Columns, side: str) -> str:
    """The SQL expression that makes the JSON of one row; `side` is NEW, OLD or the table."""
    pairs = []
    for ours in COLUMNS:
        if ours not in columns:
            continue
        name, kind = columns[ours]
        value = f"{side}.{quoted(name)}"
        if ours == "ordered_at":
            if kind == "timestamp":
                # Shown in the zone of the connection that writes, and ambiguous there once a year; its number is not.
                value = f"DATE_ADD('1970-01-01', INTERVAL UNIX_TIMESTAMP({value}) * 1000000 MICROSECOND)"
            value = f"DATE_FORMAT({value}, '%Y-%m-%dT%H:%i:%S.%fZ')"
        elif ours != "order_id" or kind not in _INTEGERS:
            value = as_text(value)
        pairs.append(f"'{ours}', {value}")
    return f"JSON_OBJECT({', '.join(pairs)})"


def traceparent(settings: Settings, side: str | None, variable: bool) -> str:
    """The SQL expression of the trace in which a row was written: the session's `@traceparent`, or the row's column.

    Whatever is in them, it fails no statement of the shop: only 55 characters that can be a traceparent's are taken,
    and nothing else is converted from one character set to another.
    """
    names = ["@traceparent"] if variable else []
    if side is not None and settings.traceparent_column is not None:
        names.append(f"{side}.{quoted(settings.traceparent_column)}")
    texts = ", ".join(
        f"IF(HEX({name}) REGEXP '^(3[0-9]|6[1-6]|2D){{55}}$', CONVERT({name} USING utf8mb4), NULL)" for name in names
    )
    return f"COALESCE({texts})" if texts else "NULL"


def quoted(name: str) -> str:
    """A name in backticks; Settings refuses names that contain one."""
    return f"`{name}`"


def as_text(value: str) -> str:
    """The SQL expression that makes text of any value."""
    return f"CONVERT({value} USING utf8mb4)"
