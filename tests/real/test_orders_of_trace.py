"""Which orders belong to a W3C trace, by the shop's rows and by changes that wait."""

from __future__ import annotations

from contextlib import closing

import pytest

from app.settings import Settings
from source import order_lookup
from source.mysql import connect
from source.setup import setup
from tests.kit.sql import numbers
from tests.kit.stack import Stack

pytestmark = pytest.mark.both_databases

TRACE, OTHER = "0af7651916cd43dd8448eb211c80319c", "1" * 32
NOW = "2026-01-31 12:00:00"


def parent(trace_id: str, flags: str = "01") -> str:
    return f"00-{trace_id}-b7ad6b7169203331-{flags}"


def insert(stack: Stack, order: object, trace: str | None, product: str = "Phone") -> None:
    stack.execute(
        "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at, trace)"
        " VALUES (%s, %s, 'ann', 5, %s, %s)",
        (order, product, NOW, trace),
    )


def settled(stack: Stack, kind: str) -> Settings:
    """A shop whose rows name their traces, in a column of that type."""
    stack.create_orders()
    stack.execute(f"ALTER TABLE orders ADD COLUMN trace {kind}, ADD KEY (trace)")
    stack.env["LATELY_SOURCE_COLUMNS"] = "traceparent=trace"
    settings = Settings.from_env(stack.env)
    setup(settings, "1d", lambda _: None)
    return settings


@pytest.mark.parametrize("kind", ["VARCHAR(200)", "VARCHAR(200) CHARACTER SET latin1", "VARBINARY(200)"])
def test_the_orders_of_a_trace_are_those_whose_rows_name_it_and_no_others(stack: Stack, kind: str):
    settings = settled(stack, kind)
    for order, product, trace in [
        ("o-1", "Phone", parent(TRACE)), ("o-1", "Case", parent(TRACE)), ("o-2", "Phone", parent(TRACE, "00")),
        ("o-3", "Phone", parent(OTHER)), ("o-4", "Phone", None), ("o-5", "Phone", parent(TRACE.upper())),
        ("o-6", "Phone", f"{parent(TRACE)}-and-more"),
    ]:  # fmt: skip
        insert(stack, order, trace, product)
    stack.execute(f"DELETE FROM {stack.outbox()}")

    assert sorted(order_lookup.find_orders_of_trace(settings, TRACE)) == ["o-1", "o-2"]
    assert order_lookup.find_orders_of_trace(settings, OTHER) == ["o-3"]
    assert order_lookup.find_orders_of_trace(settings, "2" * 32) == []


def test_a_trace_is_looked_up_in_the_index_of_its_column(stack: Stack):
    settings = settled(stack, "VARCHAR(200)")
    stack.execute(
        "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at, trace)"
        " SELECT CONCAT('o-', n), 'Phone', 'ann', 5, %s, CONCAT('00-', LPAD(n, 32, '0'), '-b7ad6b7169203331-01')"
        f" FROM {numbers(2_000)} AS counted",
        (NOW,),
    )

    with closing(connect(settings)) as connection, connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE orders")
        cursor.fetchall()
        cursor.execute("FLUSH STATUS")
        assert order_lookup._find_orders_of_rows(connection, settings, "7".zfill(32)) == ["o-7"]
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        assert sum(int(count) for _, count in cursor.fetchall()) < 200


def test_a_change_that_waits_is_of_the_trace_that_its_session_named(stack: Stack):
    stack.create_orders()
    settings = Settings.from_env(stack.env)
    setup(settings, "1d", lambda _: None)
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SET @traceparent = %s", (parent(TRACE),))
        cursor.execute(
            "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at)"
            " VALUES ('o-1', 'Pen', 'ann', 1, %s)",
            (NOW,),
        )
        connection.commit()

    assert order_lookup.find_orders_of_trace(settings, TRACE) == ["o-1"]
    stack.execute(f"DELETE FROM {stack.outbox()}")
    assert order_lookup.find_orders_of_trace(settings, TRACE) == []
