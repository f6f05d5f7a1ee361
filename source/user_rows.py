"""Purchases of users as the shop's database contains them now."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import NamedTuple

import mysql.connector

from app.settings import Settings
from domain.events import OrderLine
from domain.purchases import Purchase, purchase_sort_key
from domain.values import microseconds
from source.columns import Columns, payload_expression, read_shop_columns, text_expression
from source.mysql import Borrow, Connection, connect, explain_errors, fetch_all, fetch_row, read_server_time
from source.outbox_table import locate_outbox, quoted_outbox, read_first_version
from source.quoting import quote
from source.shop_row import decode_row
from source.unstorable import is_unstorable


class RowsOfUsers(NamedTuple):
    """User id -> purchases, in no order, and rule -> number of rows of the users that break it."""

    purchases: dict[str, list[Purchase]]
    left_out: Counter[str]


class UserRows(NamedTuple):
    """All purchases of some users, newest first.

    They include all changes committed before `as_of` (server's clock).
    """

    as_of: int
    purchases: dict[str, list[Purchase]]


def read_user_rows(settings: Settings, user_ids: list[str], borrow: Borrow) -> UserRows:
    """Read all purchases of some users, without rows that break a rule.

    Raises DatabaseAway, BadSource.
    """
    with explain_errors("MySQL closed the connection during a read"), borrow() as connection:
        # The time first: changes committed during the read may or may not be included.
        as_of = read_server_time(connection)
        purchases = read_purchases(connection, settings, user_ids).purchases
    return UserRows(
        as_of,
        {
            user_id: sorted(user_purchases, key=purchase_sort_key, reverse=True)
            for user_id, user_purchases in purchases.items()
        },
    )


def read_purchases(connection: Connection, settings: Settings, user_ids: list[str]) -> RowsOfUsers:
    """Read the purchases of some users, without rows that break a rule.

    Raises DatabaseAway, BadSource.
    """
    columns = read_shop_columns(connection, settings)
    with explain_errors(_read_failed(settings)):
        payloads = _select_payloads(connection, settings, columns, user_ids)
    purchases: dict[str, list[Purchase]] = {user_id: [] for user_id in user_ids}
    left_out: Counter[str] = Counter()
    for payload in payloads:
        row = decode_row(payload)
        # The IN of most collations also matches "Ann" for "ann".
        if str(row.fields.get("user_id")) not in purchases:
            continue
        if row.line is not None:
            purchases[row.line.user_id].append(to_purchase(row.line))
        elif row.broken_rule is not None:
            left_out[row.broken_rule] += 1
    return RowsOfUsers(purchases, left_out)


def _select_payloads(
    connection: Connection, settings: Settings, columns: Columns, user_ids: list[str]
) -> list[str | bytes]:
    """Return the rows of users; a user id that the column cannot contain has none."""
    table = quote(settings.source_table)
    placeholders = ", ".join(["%s"] * len(user_ids))
    try:
        rows = fetch_all(
            connection,
            tuple[str | bytes],
            f"SELECT {payload_expression(columns, table)} FROM {table}"
            f" WHERE {table}.{quote(columns['user_id'].name)} IN ({placeholders})",
            user_ids,
        )
    except mysql.connector.Error as exc:
        if not is_unstorable(exc, "".join(user_ids)):
            raise
        if len(user_ids) == 1:
            return []
        return [
            payload for user_id in user_ids for payload in _select_payloads(connection, settings, columns, [user_id])
        ]
    return [payload for (payload,) in rows]


def count_remaining(settings: Settings, user_id: str) -> tuple[int, int]:
    """Return the number of a user's rows in the shop's table, and of changes in the outbox.

    Raises DatabaseAway, BadSource.
    """
    # Compared as bytes, because in most collations "ann" and "Ann" are equal.
    column, expected = quote(settings.columns["user_id"]), _bytes_expression("%s")
    outbox_user = _bytes_expression("JSON_UNQUOTE(JSON_EXTRACT(payload, '$.user_id'))")
    with explain_errors(_read_failed(settings)), closing(connect(settings)) as connection:
        (rows,) = fetch_row(
            connection,
            tuple[int],
            f"SELECT COUNT(*) FROM {quote(settings.source_table)}"
            f" WHERE {column} = %s AND {_bytes_expression(column)} = {expected}",
            (user_id, user_id),
        )
        settings = locate_outbox(connection, settings)
        if read_first_version(connection, settings) is None:
            return rows, 0
        (changes,) = fetch_row(
            connection,
            tuple[int],
            f"SELECT COUNT(*) FROM {quoted_outbox(settings)} WHERE {outbox_user} = {expected}",
            (user_id,),
        )
        return rows, changes


def _read_failed(settings: Settings) -> str:
    return f"MySQL did not answer for {settings.source_table}"


def _bytes_expression(value: str) -> str:
    return f"CAST({text_expression(value)} AS BINARY)"


def to_purchase(line: OrderLine) -> Purchase:
    """Convert a row to the form in which the table by_user stores it."""
    return Purchase(
        line.order_id, line.product_name, line.version, True, microseconds(line.ordered_at), line.price,
        line.payment_method, line.category,
    )  # fmt: skip
