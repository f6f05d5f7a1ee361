"""A user's purchases as the shop's database has them at this moment."""

from __future__ import annotations

from contextlib import closing

import msgspec
import mysql.connector

from app.config import Settings
from app.errors import ServerAway
from app.folds import Register, microseconds
from app.models import Purchase, broken_rule
from app.source.columns import payload, quoted, shop_columns
from app.source.mysql import connect


def purchases(settings: Settings, user_id: str) -> list[Register]:
    """All purchases of a user, in no order; rows that break a rule are left out, as they are in the table.

    Raises ServerAway, BadSource.
    """
    with closing(connect(settings)) as connection, connection.cursor() as cursor:
        columns, table = shop_columns(connection, settings), quoted(settings.source_table)
        try:
            column = f"{table}.{quoted(columns['user_id'][0])}"
            cursor.execute(f"SELECT {payload(columns, table)} FROM {table} WHERE {column} = %s", (user_id,))
            rows = cursor.fetchall()
        except mysql.connector.Error as exc:
            raise ServerAway(f"MySQL did not answer for {settings.source_table} ({exc}): try again") from None
    found = [_purchase(row) for (row,) in rows]
    # To most collations "ann" and "Ann" are the same user.
    return [_register(one) for one in found if one is not None and one.user_id == user_id]


def _purchase(row: str | bytes) -> Purchase | None:
    try:
        fields = msgspec.json.decode(row, type=dict)
        one = msgspec.convert({**fields, "version": 0}, Purchase)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return None if broken_rule(one) else one


def _register(one: Purchase) -> Register:
    return Register(
        one.order_id, one.product_name, one.version, True, microseconds(one.ordered_at), one.price,
        one.payment_method, one.category,
    )  # fmt: skip
