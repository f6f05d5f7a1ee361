"""The running source reports changes of the shop's table and of its triggers, and goes on."""

from __future__ import annotations

import json
import urllib.request
from datetime import datetime

import mysql.connector
import pytest

from local.process import LocalProcess, find_free_port
from tests.kit.eventually import eventually
from tests.kit.stack import Stack

pytestmark = pytest.mark.both_databases

AT = datetime(2026, 1, 31, 12)


@pytest.fixture
def shop(stack: Stack) -> Stack:
    """A shop that is set up."""
    stack.create_orders()
    stack.setup()
    return stack


def order(number: int, price: str = "19.90") -> tuple:
    """One of the rows that Stack.insert takes."""
    return (f"o{number:05}", "Phone", "ann", price, AT, "card")


def started(shop: Stack, **env: str) -> LocalProcess:
    """A source that publishes."""
    source = shop.source(**env)
    eventually(lambda: shop.status().get("guarantee") == "proven" and shop.status()["running"], within=30)
    return source


def reported(shop: Stack, *kinds: str) -> None:
    """Check that the source has these problems, and no other."""
    status = shop.status()
    assert [problem["kind"] for problem in status["problems"]] == list(kinds), status
    assert status["guarantee"] == ("none" if kinds else "proven"), status


def test_a_trigger_that_disappears_is_reported_until_the_rows_are_published_anew(shop: Stack):
    port = find_free_port()
    source = started(shop, LATELY_SOURCE_METRICS_PORT=str(port))
    shop.insert(order(1))
    eventually(shop.outbox_is_empty, within=10)
    shop.execute(f"DROP TRIGGER {shop.trigger('update')}")
    eventually(lambda: reported(shop, "trigger-missing"), within=20)
    assert "orders has no trigger for UPDATE, these changes are not captured since" in shop.status()["reasons"]
    shop.execute("UPDATE orders SET price = 5")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        assert 'lately_source_problems{kind="trigger-missing"} 1.0' in response.read().decode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as response:
        assert json.load(response)["problems"][0]["kind"] == "trigger-missing"
    assert source.is_running, source.tail()
    assert source.tail(400).count("trigger-missing: ") == 1
    shown = shop.lately("source", "status").tail(20)
    assert "problem: trigger-missing: orders has no trigger for UPDATE" in shown
    checked = shop.lately("source", "check", "--json").tail(200)
    assert f"trigger {shop.trigger('update')[1:-1]}" in checked

    shop.setup(None)
    eventually(lambda: reported(shop), within=20)
    eventually(shop.assert_topic_equals_sql, within=20)
    assert source.is_running, source.tail()


def test_a_trigger_that_was_gone_for_a_moment_is_reported_also_by_the_next_source(shop: Stack):
    source = started(shop)
    statement = shop.select(f"SHOW CREATE TRIGGER {shop.trigger('update')}")[0][2]
    shop.insert(order(1))
    shop.execute(f"DROP TRIGGER {shop.trigger('update')}")
    shop.execute("UPDATE orders SET price = 5")
    shop.execute(statement)
    eventually(lambda: reported(shop, "missed"), within=20)
    source.kill()
    source = shop.source()
    eventually(lambda: "publishing" in source.tail(), within=30)
    eventually(lambda: reported(shop, "missed"), within=20)
    shop.setup(None)
    eventually(lambda: reported(shop), within=20)
    eventually(shop.assert_topic_equals_sql, within=20)


def test_a_renamed_column_that_makes_the_shop_fail_is_reported_until_setup(shop: Stack):
    source = started(shop)
    shop.execute("ALTER TABLE orders RENAME COLUMN payment_method TO paid_by")
    with pytest.raises(mysql.connector.Error, match="1054"):
        shop.execute("INSERT INTO orders VALUES ('o1', 'Phone', 'ann', 1, NOW(), 'card', NULL)")
    eventually(lambda: reported(shop, "column-missing"), within=20)
    assert "every INSERT and UPDATE and DELETE of the shop fails with error 1054" in shop.status()["reasons"]
    shop.setup(None)
    shop.execute("INSERT INTO orders VALUES ('o1', 'Phone', 'ann', 1, NOW(), 'card', NULL)")
    eventually(lambda: reported(shop), within=20)
    assert source.is_running, source.tail()


def test_a_datetime_that_becomes_a_timestamp_is_reported_until_setup(shop: Stack):
    source = started(shop)
    shop.execute("ALTER TABLE orders MODIFY ordered_at TIMESTAMP(6) NOT NULL")
    eventually(lambda: reported(shop, "column-type"), within=20)
    assert "wrong by the difference of the time zones" in shop.status()["reasons"]
    shop.setup(None)
    eventually(lambda: reported(shop), within=20)
    shop.execute("ALTER TABLE orders ADD COLUMN shipped INT, ADD INDEX (ordered_at)")
    shop.insert(order(2))
    eventually(shop.outbox_is_empty, within=20)
    reported(shop)
    assert source.is_running, source.tail()


def test_a_source_that_starts_without_a_trigger_ends_with_the_next_step(shop: Stack):
    shop.execute(f"DROP TRIGGER {shop.trigger('update')}")
    source = shop.lately("source")
    assert source.child.returncode == 2
    assert "lately source setup" in source.tail()


def test_an_outbox_that_is_dropped_does_not_end_the_source(shop: Stack):
    source = started(shop)
    shop.insert(order(1))
    eventually(shop.outbox_is_empty, within=10)
    shop.execute(f"DROP TABLE {shop.outbox()}, {shop.outbox('_state')}")
    with pytest.raises(mysql.connector.Error, match="1146"):
        shop.insert(order(2))
    eventually(lambda: reported(shop, "outbox-missing"), within=20)
    shop.setup(None)
    shop.insert(order(2))
    eventually(lambda: reported(shop), within=20)
    eventually(shop.assert_topic_equals_sql, within=20)
    assert source.is_running, source.tail()


def test_a_schema_of_the_outbox_that_is_dropped_does_not_end_the_source(shop: Stack):
    source = started(shop)
    shop.insert(order(1))
    eventually(shop.outbox_is_empty, within=10)
    schema = shop.outbox().partition(".")[0]
    shop.execute(f"DROP DATABASE {schema}")
    eventually(lambda: "run `lately source setup`" in source.tail(400), within=30)
    shop.setup(None)
    shop.insert(order(2))
    eventually(lambda: reported(shop), within=60)
    eventually(shop.assert_topic_equals_sql, within=20)
    assert source.is_running, source.tail()
