"""Users' purchases as the shop's database has them at this moment."""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

import msgspec
import mysql.connector

from app.errors import ServerAway
from app.settings import Settings
from domain.events import OrderLine, find_broken_rule
from domain.purchases import Purchase, purchase_sort_key
from domain.values import microseconds
from source import triggers
from source.columns import payload_expression, quote, read_shop_columns, text_expression
from source.mysql import Connection, connect, read_server_time


class UserRows(NamedTuple):
    """All purchases of some users, newest first, with all that was committed at `as_of`, by the database's clock."""

    as_of: int
    purchases: dict[str, list[Purchase]]


def read_user_rows(settings: Settings, user_ids: list[str]) -> UserRows:
    """All purchases of some users; rows that break a rule are left out, as they are in the table.

    Raises ServerAway, BadSource.
    """
    try:
        with closing(connect(settings)) as connection:
            # First: what is committed while it is read may or may not be in it.
            as_of = read_server_time(connection)
            found = read_purchases(connection, settings, user_ids)
    except mysql.connector.Error as exc:
        raise ServerAway(f"MySQL went away in the middle of an answer ({exc}): try again") from None
    return UserRows(
        as_of, {user_id: sorted(some, key=purchase_sort_key, reverse=True) for user_id, some in found.items()}
    )


def read_purchases(connection: Connection, settings: Settings, user_ids: list[str]) -> dict[str, list[Purchase]]:
    """The purchases of each of some users, in no order. Raises ServerAway, BadSource."""
    columns, table = read_shop_columns(connection, settings), quote(settings.source_table)
    column = f"{table}.{quote(columns['user_id'][0])}"
    wanted = ", ".join(["%s"] * len(user_ids))
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {payload_expression(columns, table)} FROM {table} WHERE {column} IN ({wanted})", user_ids
            )
            rows = cursor.fetchall()
    except mysql.connector.Error as exc:
        raise ServerAway(f"MySQL did not answer for {settings.source_table} ({exc}): try again") from None
    found: dict[str, list[Purchase]] = {user_id: [] for user_id in user_ids}
    for (row,) in rows:
        one = decode_row(row)
        # To most collations "ann" and "Ann" are the same user.
        if one is not None and one.user_id in found:
            found[one.user_id].append(register(one))
    return found


def count_remaining(settings: Settings, user_id: str) -> tuple[int, int]:
    """How many rows the shop has of a user, and how many of the user's changes wait in the outbox.

    Raises ServerAway, BadSource.
    """
    # To most collations "ann" and "Ann" are the same user.
    column, wanted = quote(settings.columns["user_id"]), _as_bytes("%s")
    said = _as_bytes("JSON_UNQUOTE(JSON_EXTRACT(payload, '$.user_id'))")
    try:
        with closing(connect(settings)) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"SELECT COUNT(*) FROM {quote(settings.source_table)}"
                f" WHERE {column} = %s AND {_as_bytes(column)} = {wanted}",
                (user_id, user_id),
            )
            rows = cursor.fetchone()[0]
            if triggers.read_first_version(connection, settings) is None:
                return rows, 0
            cursor.execute(f"SELECT COUNT(*) FROM {quote(settings.source_outbox)} WHERE {said} = {wanted}", (user_id,))
            return rows, cursor.fetchone()[0]
    except mysql.connector.Error as exc:
        raise ServerAway(f"MySQL did not answer for {settings.source_table} ({exc}): try again") from None


def _as_bytes(value: str) -> str:
    return f"CAST({text_expression(value)} AS BINARY)"


def decode_row(row: str | bytes) -> OrderLine | None:
    """The purchase that a row's JSON says, its version 0; None where it breaks a rule."""
    try:
        fields = msgspec.json.decode(row, type=dict)
        one = msgspec.convert({**fields, "version": 0}, OrderLine)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return None if find_broken_rule(one) else one


def register(one: OrderLine) -> Purchase:
    """The same as the table keeps it."""
    return Purchase(
        one.order_id, one.product_name, one.version, True, microseconds(one.ordered_at), one.price,
        one.payment_method, one.category,
    )  # fmt: skip
