"""Orders as the shop's database has them: rows, and changes that wait in the outbox."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import msgspec
import mysql.connector
from mysql.connector import errorcode

from app.errors import ServerAway
from app.settings import OUTBOX, Settings
from domain.diagnosis import PendingChange, ShopRow
from domain.events import OrderLine, find_broken_rule, trace_id_of
from source import user_rows
from source.columns import payload_expression, quote, read_shop_columns, traceparent_expression
from source.mysql import Connection, connect

#: An order has few rows, and few changes that wait.
MAX_ROWS = 1_000


def find_order(settings: Settings, order_id: str) -> tuple[list[ShopRow], list[PendingChange]]:
    """The rows of an order, and the changes that wait, the oldest first. Raises ServerAway, BadSource."""
    with _connected(settings) as connection:
        # The outbox last: what is published meanwhile is found behind it.
        return _rows(connection, settings, order_id), _waiting(connection, settings, order_id)


def find_orders_of_trace(settings: Settings, trace_id: str) -> list[str]:
    """The ids of the orders whose row, or whose change that waits, names a trace. Raises ServerAway, BadSource."""
    with _connected(settings) as connection:
        found = [*_rows_in_trace(connection, settings, trace_id), *_waiting_in_trace(connection, settings, trace_id)]
    return list(dict.fromkeys(found))


@contextmanager
def _connected(settings: Settings) -> Iterator[Connection]:
    try:
        with closing(connect(settings)) as connection:
            yield connection
    except mysql.connector.Error as exc:
        raise ServerAway(f"MySQL did not answer for {settings.source_table} ({exc}): try again") from None


def _rows(connection: Connection, settings: Settings, order_id: str) -> list[ShopRow]:
    columns, table = read_shop_columns(connection, settings), quote(settings.source_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {payload_expression(columns, table)} FROM {table}"
            f" WHERE {table}.{quote(columns['order_id'][0])} = %s LIMIT {MAX_ROWS}",
            (order_id,),
        )
        found = [_row(text) for (text,) in cursor.fetchall()]
    # To most collations "o" and "O" are the same order.
    return [row for said, row in found if said == order_id]


def _row(text: str | bytes) -> tuple[str, ShopRow]:
    fields = msgspec.json.decode(text, type=dict)
    broken = register = None
    try:
        one = msgspec.convert({**fields, "version": 0}, OrderLine)
    except msgspec.ValidationError as exc:
        broken = str(exc)
    else:
        broken = find_broken_rule(one)
        register = None if broken else user_rows.register(one)
    return str(fields["order_id"]), ShopRow(str(fields["user_id"]), str(fields["product_name"]), register, broken)


def _rows_in_trace(connection: Connection, settings: Settings, trace_id: str) -> list[str]:
    columns, table = read_shop_columns(connection, settings), quote(settings.source_table)
    if settings.traceparent_column is None:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {payload_expression(columns, table)}, {traceparent_expression(settings, table, False)} FROM {table}"
            f" WHERE {table}.{quote(settings.traceparent_column)} LIKE %s LIMIT {MAX_ROWS}",
            (_of_trace(trace_id),),
        )
        found = [(msgspec.json.decode(text, type=dict), said) for text, said in cursor.fetchall()]
    return [str(fields["order_id"]) for fields, said in found if trace_id_of(said) == trace_id]


def _waiting(connection: Connection, settings: Settings, order_id: str) -> list[PendingChange]:
    found = _in_outbox(connection, settings, "aggregateid = LEFT(%s, 255)", order_id)
    return [
        PendingChange(str(fields.get("user_id")), str(fields.get("product_name")), kind, age)
        for fields, kind, age, _ in found
        if str(fields.get("order_id")) == order_id
    ]


def _waiting_in_trace(connection: Connection, settings: Settings, trace_id: str) -> list[str]:
    found = _in_outbox(connection, settings, "traceparent LIKE %s", _of_trace(trace_id))
    return [str(fields.get("order_id")) for fields, _, _, said in found if trace_id_of(said) == trace_id]


def _in_outbox(
    connection: Connection, settings: Settings, where: str, value: str
) -> list[tuple[dict, str, float, str | None]]:
    """Of the oldest changes that wait: data, type, for how many seconds, traceparent."""
    if settings.source_mode != OUTBOX:
        return []
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT payload, type, UNIX_TIMESTAMP(NOW(6)) - UNIX_TIMESTAMP(created_at), traceparent"
                f" FROM {quote(settings.source_outbox)} WHERE {where} ORDER BY id LIMIT {MAX_ROWS}",
                (value,),
            )
            return [
                (msgspec.json.decode(text, type=dict), kind, float(age), said)
                for text, kind, age, said in cursor.fetchall()
            ]
    except mysql.connector.Error as exc:
        if exc.errno == errorcode.ER_NO_SUCH_TABLE:
            return []
        raise


def _of_trace(trace_id: str) -> str:
    # Version 00 is the only one there is; a pattern that begins with text is looked up in an index.
    return f"00-{trace_id}-%"
