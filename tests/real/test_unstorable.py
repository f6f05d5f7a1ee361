"""An id that the column of the shop cannot contain has no rows, and is no error of the server."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime

import pytest

from app.settings import Settings
from source import order_lookup
from source.mysql import connect
from source.user_rows import read_purchases
from tests.kit.stack import Stack

pytestmark = pytest.mark.both_databases

AT = datetime(2026, 1, 31, 12, 0, 0)
FOREIGN = ["😀", "ann😀", "ж", "é", "用户", "x" * 128]


@pytest.mark.parametrize("charset", ["utf8mb3", "latin1", "ascii", "utf8mb4"])
def test_users_and_orders_that_no_row_can_have_have_no_rows(stack: Stack, settings: Settings, charset: str):
    stack.create_orders()
    for column in ("user_id", "order_id"):
        stack.execute(f"ALTER TABLE orders MODIFY {column} VARCHAR(40) CHARACTER SET {charset} NOT NULL")
    stack.insert(("o-1", "Phone", "ann", "19.90", AT, "card"))
    with closing(connect(settings)) as connection:
        rows = read_purchases(connection, settings, ["ann", *FOREIGN])
        assert {user: len(purchases) for user, purchases in rows.purchases.items()} == {"ann": 1} | dict.fromkeys(
            FOREIGN, 0
        )
    for order in FOREIGN:
        assert order_lookup.find_order(settings, order) == ([], [])


def test_an_id_of_digits_is_compared_with_a_numeric_column(stack: Stack, settings: Settings):
    stack.create_orders()
    stack.execute("ALTER TABLE orders MODIFY user_id BIGINT NOT NULL")
    stack.insert(("o-1", "Phone", 7, "19.90", AT, "card"))
    with closing(connect(settings)) as connection:
        rows = read_purchases(connection, settings, ["7", "7x", "ж", "😀"])
    assert {user: len(purchases) for user, purchases in rows.purchases.items()} == {"7": 1, "7x": 0, "ж": 0, "😀": 0}
