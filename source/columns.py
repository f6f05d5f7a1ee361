"""Names and types of the shop's columns, and the SQL expressions that build an event's data."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import mysql.connector

from app.errors import BadSource
from app.settings import COLUMNS, OPTIONAL_COLUMNS, Settings
from source.mysql import Connection, execute, fetch_all, to_text
from source.quoting import quote

_INTEGERS = {"tinyint", "smallint", "mediumint", "int", "bigint"}
_TIMES = {"datetime", "timestamp"}
_PRICES = {*_INTEGERS, "decimal", "float", "double"}
_GEOMETRIES = {
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
    "geometrycollection", "geomcollection",
}  # fmt: skip
_BINARY = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "bit", "vector", *_GEOMETRIES}


class ShopColumn(NamedTuple):
    """A column of the shop's table: its name, its data type in lower case, ZEROFILL or not."""

    name: str
    type: str
    is_zerofill: bool = False


#: Lately's column name -> the shop's column.
Columns = dict[str, ShopColumn]


class ColumnProblem(NamedTuple):
    """A problem of the shop's table or of a column, and the next step."""

    subject: str
    problem: str
    fix: str


def read_shop_columns(connection: Connection, settings: Settings) -> Columns:
    """Return the columns of the shop's table, without the optional ones that it lacks.

    Raises BadSource when the table or a column is missing, or a column has an unsuitable type.
    """
    columns = read_columns(connection, settings)
    for problem in find_problems(connection, columns, settings):
        raise BadSource(f"{problem.problem}: {problem.fix}")
    return select_columns(columns, settings)


def select_columns(columns: Columns, settings: Settings) -> Columns:
    """Return those of all columns that Lately reads, by Lately's names."""
    return {
        name: columns[shop_name.lower()] for name, shop_name in settings.columns.items() if shop_name.lower() in columns
    }


def find_column_problems(connection: Connection, settings: Settings) -> list[ColumnProblem]:
    """Check the shop's table and columns."""
    return find_problems(connection, read_columns(connection, settings), settings)


def find_problems(connection: Connection, columns: Columns, settings: Settings) -> list[ColumnProblem]:
    """Check columns of the shop's table that `read_columns` has returned."""
    table = settings.shop_table
    if not columns:
        return [_missing_table(connection, settings)]
    problems = []
    for name, shop_name in settings.columns.items():
        column = columns.get(shop_name.lower())
        if column is not None:
            problem = _find_type_problem(table, name, column)
            if problem is not None:
                problems.append(ColumnProblem(f"column {name}", *problem))
        elif name not in OPTIONAL_COLUMNS or name != shop_name:
            fix = f"name the one that holds {name} in LATELY_SOURCE_COLUMNS, as {name}=its_name"
            problems.append(ColumnProblem(f"column {name}", f"table {table} has no column {shop_name}", fix))
    trace_column = settings.traceparent_column
    if trace_column is not None and trace_column.lower() not in columns:
        fix = "add it, or remove traceparent from LATELY_SOURCE_COLUMNS"
        problems.append(ColumnProblem("column traceparent", f"table {table} has no column {trace_column}", fix))
    return problems


def _missing_table(connection: Connection, settings: Settings) -> ColumnProblem:
    """Return why no column is visible: the server hides tables and columns without a privilege."""
    table = settings.shop_table
    visible = fetch_all(
        connection,
        tuple[int],
        "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = %s",
        (settings.mysql_database, settings.source_table),
    )
    grant = f"GRANT SELECT, TRIGGER ON {quote(settings.mysql_database)}.{quote(settings.source_table)} to the user"
    if visible:
        return ColumnProblem("table", f"the user may not read {table}", grant)
    fix = f"create it, set LATELY_SOURCE_TABLE and LATELY_MYSQL_DATABASE, or {grant}"
    return ColumnProblem("table", f"there is no table {table}", fix)


def _find_type_problem(table: str, name: str, column: ShopColumn) -> tuple[str, str] | None:
    """Return problem and next step when a column's type does not fit Lately's column `name`."""
    prefix = f"column {column.name} of {table} is of type {column.type}, but {name}"
    if name == "ordered_at" and column.type not in _TIMES:
        return f"{prefix} must be a DATETIME or TIMESTAMP", "change its type"
    if name == "price" and column.type not in _PRICES:
        return f"{prefix} must be a DECIMAL or another number", "change its type"
    if column.type in _BINARY:
        fix = "add a generated column, such as HEX of it, and name that column in LATELY_SOURCE_COLUMNS"
        return f"{prefix} must be text or a number", fix
    return None


def read_columns(connection: Connection, settings: Settings) -> Columns:
    """Return all columns of the shop's table by their names in lower case."""
    rows = fetch_all(
        connection,
        tuple[str | bytes, str | bytes, str | bytes],
        "SELECT column_name, data_type, column_type FROM information_schema.columns"
        " WHERE table_schema = %s AND table_name = %s",
        (settings.mysql_database, settings.source_table),
    )
    return {
        to_text(name).lower(): ShopColumn(
            to_text(name), to_text(data_type).lower(), "zerofill" in to_text(column_type).lower()
        )
        for name, data_type, column_type in rows
    }


def read_primary_key(connection: Connection, settings: Settings) -> list[ShopColumn]:
    """Return the columns of the shop's primary key in their order; empty without a key.

    A key that MySQL has generated (`my_row_id`) is included also where the server hides it.
    """
    with suppress(mysql.connector.Error):  # MariaDB has no such variable
        execute(connection, "SET SESSION show_gipk_in_create_table_and_information_schema = ON")
    # Two statements: MariaDB opens every table of the database for a join of the two views.
    columns = read_columns(connection, settings)
    rows = fetch_all(
        connection,
        tuple[str | bytes],
        "SELECT column_name FROM information_schema.statistics"
        " WHERE table_schema = %s AND table_name = %s AND index_name = 'PRIMARY' ORDER BY seq_in_index",
        (settings.mysql_database, settings.source_table),
    )
    names = [to_text(name).lower() for (name,) in rows]
    return [columns[name] for name in names if name in columns]


def payload_expression(columns: Columns, qualifier: str) -> str:
    """Return the SQL expression of a row's JSON; `qualifier` is NEW, OLD or the quoted table.

    All readers of rows use it, so that a value has one spelling in all of them.
    """
    pairs = []
    for name in COLUMNS:
        if name not in columns:
            continue
        column = columns[name]
        value = f"{qualifier}.{quote(column.name)}"
        if name == "ordered_at":
            value = f"DATE_FORMAT({_time_expression(column, value)}, '%Y-%m-%dT%H:%i:%S.%fZ')"
        elif name == "order_id" and column.type in _INTEGERS:
            value = order_id_expression(column, qualifier)
        else:
            value = text_expression(value)
            if column.type == "longtext":
                # The type JSON of MariaDB: without CONCAT its value would be a part of this JSON.
                value = f"CONCAT({value}, '')"
        pairs.append(f"'{name}', {value}")
    return f"JSON_OBJECT({', '.join(pairs)})"


def order_id_expression(column: ShopColumn, qualifier: str) -> str:
    """Return the SQL expression of a row's order id: a number for an integer column."""
    value = f"{qualifier}.{quote(column.name)}"
    # MariaDB prints the leading zeros of ZEROFILL, which no number in JSON may have.
    return f"CAST({value} AS UNSIGNED)" if column.type in _INTEGERS and column.is_zerofill else value


def _time_expression(column: ShopColumn, value: str) -> str:
    """Return the SQL expression of a time in UTC; NULL for the zero value of a TIMESTAMP."""
    if column.type != "timestamp":
        return value
    # As text a TIMESTAMP depends on the time zone of the connection that writes, where one hour of
    # the year is ambiguous. As a number it does not. The first TIMESTAMP is 1; for a zero value,
    # which may have a fraction, the number is NULL or less than 1, depending on server and trigger.
    seconds = f"UNIX_TIMESTAMP({value})"
    return f"IF({seconds} < 1, NULL, DATE_ADD('1970-01-01', INTERVAL {seconds} * 1000000 MICROSECOND))"


def traceparent_expression(settings: Settings, qualifier: str | None, with_variable: bool) -> str:
    """Return the SQL expression of a row's trace: the session's `@traceparent`, or a column.

    No value of them can make a statement of the shop fail: only values of the 55 characters that a
    traceparent may have are used, and no other value is converted to another character set.
    """
    names = ["@traceparent"] if with_variable else []
    if qualifier is not None and settings.traceparent_column is not None:
        names.append(f"{qualifier}.{quote(settings.traceparent_column)}")
    texts = ", ".join(
        f"IF(HEX({name}) REGEXP '^(3[0-9]|6[1-6]|2D){{55}}$', CONVERT({name} USING utf8mb4), NULL)" for name in names
    )
    return f"COALESCE({texts})" if texts else "NULL"


def text_expression(value: str) -> str:
    """Return the SQL expression that converts any value to text."""
    return f"CONVERT({value} USING utf8mb4)"
