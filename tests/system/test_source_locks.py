"""What stops a source, and what does not: locked tables, locks of strangers, rows of strangers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime

import mysql.connector
import pytest

from app.settings import Settings
from source import locks
from tests.kit.eventually import eventually
from tests.kit.stack import Stack

pytestmark = pytest.mark.both_databases

AT = datetime(2026, 1, 31, 12)


def order(number: int) -> tuple:
    """One of the rows that Stack.insert takes."""
    return (f"o{number:05}", "Phone", "ann", "19.90", AT, "card")


@contextmanager
def stranger(stack: Stack) -> Iterator[mysql.connector.MySQLConnection]:
    """A connection of an account without any privilege."""
    user = f"s{stack.name[1:]}"
    stack.execute(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'")
    try:
        with closing(
            mysql.connector.connect(
                host=stack.servers.host,
                port=stack.servers.port,
                user=user,
                password="secret",
                collation="utf8mb4_general_ci",
                use_pure=True,
            )
        ) as connection:
            yield connection
    finally:
        stack.execute(f"DROP USER '{user}'@'%'")


@pytest.mark.slow
@pytest.mark.mysql_only("on MariaDB LOCK TABLES of the shop does not block reads of the outbox")
@pytest.mark.cost(25)
def test_a_table_that_the_shop_has_locked_is_named_as_the_cause_and_publishing_continues(stack: Stack):
    stack.create_orders()
    stack.setup()
    source = stack.source()
    eventually(lambda: "publishing" in source.tail(), within=30)
    with closing(stack.connect()) as shop, closing(shop.cursor()) as cursor:
        cursor.execute("LOCK TABLES orders WRITE")
        eventually(lambda: "publishing stopped" in source.tail(200), within=60)
        line = next(line for line in source.tail(200).splitlines() if "publishing stopped" in line)
        assert f"has locked the table {stack.name}_lately.purchase_outbox (LOCK TABLES orders WRITE" in line
        assert "continues after UNLOCK TABLES" in line
        cursor.execute(
            "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at)"
            " VALUES ('o1', 'Phone', 'ann', 1, NOW())"
        )
        shop.commit()
        cursor.execute("UNLOCK TABLES")
    eventually(stack.outbox_is_empty, within=60)
    stack.assert_topic_equals_sql()
    assert source.is_running


def test_named_locks_of_an_account_without_privileges_stop_no_source(stack: Stack):
    stack.env["LATELY_SOURCE_OUTBOX"] = "purchase_outbox"
    stack.create_orders()
    stack.setup()
    settings = Settings.from_env(stack.env)
    with stranger(stack) as connection, closing(connection.cursor()) as cursor:
        for kind in (locks.LEADER, locks.HANDOVER, locks.SNAPSHOT):
            cursor.execute("SELECT GET_LOCK(%s, 0)", (locks.lock_name(settings, kind),))
            assert cursor.fetchall() == [(1,)]
        source = stack.source()
        stack.insert(*map(order, range(5)))
        eventually(stack.outbox_is_empty, within=30)
        second = stack.source()
        eventually(lambda: "waiting to take over" in second.tail(), within=30)
        assert f"another source publishes ({stack.status()['leader']} since " in second.tail()
        assert stack.lately("source", "snapshot", "--all").child.returncode == 0
        source.kill()
        stack.insert(*map(order, range(5, 10)))
        eventually(stack.outbox_is_empty, within=10)
        for process in (source, second):
            assert "rescale" not in process.tail(500)
    stack.assert_topic_equals_sql()


def test_rows_of_strangers_stop_neither_the_source_nor_the_shop(stack: Stack):
    stack.create_orders()
    stack.setup()
    source = stack.source()
    columns = "id, event_id, type, payload"
    for row_id, payload in ((5, "{}"), (-1, "{}"), (2**62, '{"user_id": "eve"}'), (2**63 - 1, "{}")):
        stack.execute(
            f"INSERT INTO {stack.outbox()} ({columns}) VALUES (%s, '0', 'order.placed', %s)", (row_id, payload)
        )
        if row_id < 2**62:
            stack.insert(order(row_id + 10))
    # The source leaves the row with the largest id, because MySQL would assign the id again.
    eventually(lambda: stack.count_outbox() == 1, within=30)
    letters = [dict(letter.headers()) for letter in stack.records("orders-dead")]
    assert {int(headers["__lately.errors.offset"]) for headers in letters} == {5, -1, 2**62}
    eventually(lambda: "every INSERT of the shop fails" in source.tail(200), within=30)
    with pytest.raises(mysql.connector.Error):
        stack.insert(order(100))
    checked = stack.lately("source", "check", "--json")
    assert checked.child.returncode == 2
    failed = [json.loads(line) for line in checked.tail(50).splitlines() if '"next id"' in line]
    assert "every INSERT of the shop fails" in json.dumps(failed)

    assert stack.lately("source", "setup").child.returncode == 0
    letters = [dict(letter.headers()) for letter in stack.records("orders-dead")]
    assert str(2**63 - 1).encode() in [headers["__lately.errors.offset"] for headers in letters]
    stack.insert(order(101))
    stack.execute("UPDATE orders SET price = 5")
    eventually(stack.outbox_is_empty, within=30)
    stack.assert_topic_equals_sql()
    assert source.is_running
    assert max(event["data"]["version"] for event in stack.events()) < 2**53
