"""One order as the shop's database has it: its rows, and its changes that wait in the outbox."""

from __future__ import annotations

from contextlib import closing

import msgspec
import mysql.connector
from mysql.connector import errorcode

from app.config import OUTBOX, Settings
from app.diagnosis import Row, Waiting
from app.errors import ServerAway
from app.models import Purchase, broken_rule
from app.source import reading
from app.source.columns import payload, quoted, shop_columns
from app.source.mysql import Connection, connect

#: An order has few rows, and few changes that wait.
MOST = 1_000


def find(settings: Settings, order_id: str) -> tuple[list[Row], list[Waiting]]:
    """The rows of an order, and the changes that wait, the oldest first. Raises ServerAway, BadSource."""
    try:
        with closing(connect(settings)) as connection:
            # The outbox last: what is published meanwhile is found behind it.
            return _rows(connection, settings, order_id), _waiting(connection, settings, order_id)
    except mysql.connector.Error as exc:
        raise ServerAway(f"MySQL did not answer for {settings.source_table} ({exc}): try again") from None


def _rows(connection: Connection, settings: Settings, order_id: str) -> list[Row]:
    columns, table = shop_columns(connection, settings), quoted(settings.source_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {payload(columns, table)} FROM {table}"
            f" WHERE {table}.{quoted(columns['order_id'][0])} = %s LIMIT {MOST}",
            (order_id,),
        )
        found = [_row(text) for (text,) in cursor.fetchall()]
    # To most collations "o" and "O" are the same order.
    return [row for said, row in found if said == order_id]


def _row(text: str | bytes) -> tuple[str, Row]:
    fields = msgspec.json.decode(text, type=dict)
    broken = register = None
    try:
        one = msgspec.convert({**fields, "version": 0}, Purchase)
    except msgspec.ValidationError as exc:
        broken = str(exc)
    else:
        broken = broken_rule(one)
        register = None if broken else reading.register(one)
    return str(fields["order_id"]), Row(str(fields["user_id"]), str(fields["product_name"]), register, broken)


def _waiting(connection: Connection, settings: Settings, order_id: str) -> list[Waiting]:
    if settings.source_mode != OUTBOX:
        return []
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT payload, type, UNIX_TIMESTAMP(NOW(6)) - UNIX_TIMESTAMP(created_at)"
                f" FROM {quoted(settings.source_outbox)} WHERE aggregateid = LEFT(%s, 255) ORDER BY id LIMIT {MOST}",
                (order_id,),
            )
            found = [(msgspec.json.decode(text, type=dict), kind, float(age)) for text, kind, age in cursor.fetchall()]
    except mysql.connector.Error as exc:
        if exc.errno == errorcode.ER_NO_SUCH_TABLE:
            return []
        raise
    return [
        Waiting(str(fields.get("user_id")), str(fields.get("product_name")), kind, age)
        for fields, kind, age in found
        if str(fields.get("order_id")) == order_id
    ]
