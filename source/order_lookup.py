"""Orders in the shop's database: rows, and changes in the outbox that are not published yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import NamedTuple

import msgspec
import mysql.connector

from app.settings import OUTBOX, Settings
from domain.diagnosis import PendingChange, ShopRow
from domain.events import trace_id_of
from source import user_rows
from source.columns import payload_expression, read_shop_columns, traceparent_expression
from source.mysql import Borrow, Connection, connected, explain_errors, fetch_all
from source.outbox_table import UNKNOWN_TABLE, locate_outbox, quoted_outbox
from source.quoting import quote
from source.shop_row import DecodedRow, decode_row
from source.unstorable import is_unstorable

#: Upper limit for the rows and for the pending changes of an order; real orders have few.
MAX_ROWS = 1_000


class _OutboxChange(NamedTuple):
    data: dict[str, object]
    event_type: str
    age_s: float
    traceparent: str | None


def find_order(
    settings: Settings, order_id: str, borrow: Borrow | None = None
) -> tuple[list[ShopRow], list[PendingChange]]:
    """Return the rows of an order, and its pending changes, oldest first.

    `borrow` lends the connection; None opens one.

    Raises DatabaseAway, BadSource.
    """
    with _connect(settings, borrow) as connection:
        try:
            rows = _find_rows(connection, settings, order_id)
        except mysql.connector.Error as exc:
            if not is_unstorable(exc, order_id):
                raise
            rows = []
        # The outbox last: a change that is published in between is found in Kafka afterwards.
        return rows, _find_changes(connection, settings, order_id)


def find_orders_of_trace(settings: Settings, trace_id: str) -> list[str]:
    """Return the ids of the orders that have a row or a pending change with this trace id.

    Raises DatabaseAway, BadSource.
    """
    with _connect(settings) as connection:
        of_rows = _find_orders_of_rows(connection, settings, trace_id)
        of_changes = _find_orders_of_changes(connection, settings, trace_id)
    return list(dict.fromkeys([*of_rows, *of_changes]))


@contextmanager
def _connect(settings: Settings, borrow: Borrow | None = None) -> Iterator[Connection]:
    with explain_errors(f"MySQL did not answer for {settings.source_table}"):
        with borrow() if borrow is not None else connected(settings) as connection:
            yield connection


def _find_rows(connection: Connection, settings: Settings, order_id: str) -> list[ShopRow]:
    columns, table = read_shop_columns(connection, settings), quote(settings.source_table)
    payloads = fetch_all(
        connection,
        tuple[str | bytes],
        f"SELECT {payload_expression(columns, table)} FROM {table}"
        f" WHERE {table}.{quote(columns['order_id'].name)} = %s LIMIT {MAX_ROWS}",
        (order_id,),
    )
    rows = [decode_row(payload) for (payload,) in payloads]
    # In most collations "o" and "O" are equal.
    return [_build_row(row) for row in rows if str(row.fields.get("order_id")) == order_id]


def _decode_fields(payload: str | bytes) -> dict[str, object]:
    return msgspec.json.decode(payload, type=dict[str, object])


def _build_row(row: DecodedRow) -> ShopRow:
    purchase = None if row.line is None else user_rows.to_purchase(row.line)
    fields = row.fields
    return ShopRow(str(fields.get("user_id")), str(fields.get("product_name")), purchase, row.broken_rule)


def _find_orders_of_rows(connection: Connection, settings: Settings, trace_id: str) -> list[str]:
    columns, table = read_shop_columns(connection, settings), quote(settings.source_table)
    if settings.traceparent_column is None:
        return []
    rows = fetch_all(
        connection,
        tuple[str | bytes, str | None],
        f"SELECT {payload_expression(columns, table)}, {traceparent_expression(settings, table, False)}"
        f" FROM {table} WHERE {table}.{quote(settings.traceparent_column)} LIKE %s LIMIT {MAX_ROWS}",
        (_traceparent_pattern(trace_id),),
    )
    return [
        str(_decode_fields(payload)["order_id"])
        for payload, traceparent in rows
        if trace_id_of(traceparent) == trace_id
    ]


def _find_changes(connection: Connection, settings: Settings, order_id: str) -> list[PendingChange]:
    changes = _read_outbox(connection, settings, "aggregateid = LEFT(%s, 255)", order_id)
    return [
        PendingChange(
            str(change.data.get("user_id")), str(change.data.get("product_name")), change.event_type, change.age_s
        )
        for change in changes
        if str(change.data.get("order_id")) == order_id
    ]


def _find_orders_of_changes(connection: Connection, settings: Settings, trace_id: str) -> list[str]:
    changes = _read_outbox(connection, settings, "traceparent LIKE %s", _traceparent_pattern(trace_id))
    return [str(change.data.get("order_id")) for change in changes if trace_id_of(change.traceparent) == trace_id]


def _read_outbox(connection: Connection, settings: Settings, where: str, value: str) -> list[_OutboxChange]:
    """Return the oldest pending changes that satisfy a condition; empty without an outbox."""
    if settings.source_mode != OUTBOX:
        return []
    try:
        settings = locate_outbox(connection, settings)
        rows = fetch_all(
            connection,
            tuple[str | bytes, str, Decimal, str | None],
            "SELECT payload, type, UNIX_TIMESTAMP(NOW(6)) - UNIX_TIMESTAMP(created_at), traceparent"
            f" FROM {quoted_outbox(settings)} WHERE {where} ORDER BY id LIMIT {MAX_ROWS}",
            (value,),
        )
    except mysql.connector.Error as exc:
        if exc.errno in UNKNOWN_TABLE:
            return []
        raise
    return [
        _OutboxChange(_decode_fields(payload), event_type, float(age_s), traceparent)
        for payload, event_type, age_s, traceparent in rows
    ]


def _traceparent_pattern(trace_id: str) -> str:
    # Version 00 is the only version of traceparent. A pattern that starts with text can use an
    # index.
    return f"00-{trace_id}-%"
