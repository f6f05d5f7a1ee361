"""The commands and the source with the privileges that the documentation names, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from local.database_server import DatabaseServer
from tests.kit.eventually import eventually
from tests.kit.orders import count_published
from tests.kit.stack import Servers, Stack

AT = datetime(2026, 1, 31, 12)
pytestmark = pytest.mark.both_databases


def order(number: int) -> tuple:
    """One row of the shop's table."""
    return (f"o{number}", "Phone", "ann", "1.00", AT, "card")


@pytest.fixture
def privileges_stack(privileges_servers: Servers, kafka: str, tmp_path: Path) -> Iterator[Stack]:
    """A shop on the database server with a binary log."""
    with Stack(replace(privileges_servers, kafka=kafka), tmp_path) as stack:
        stack.execute("SET GLOBAL log_bin_trust_function_creators = 1")
        yield stack


@pytest.mark.group("privileges")
def test_the_printed_privileges_are_sufficient_for_setup_source_check_and_teardown(privileges_stack: Stack):
    stack = privileges_stack
    stack.create_orders()
    stack.insert(order(1))
    user, definer = f"u{stack.name[1:]}", f"d{stack.name[1:]}@localhost"
    printed = stack.lately("source", "setup", "--print-sql", LATELY_SOURCE_DEFINER=definer).tail(400)
    grants = [line.removeprefix("--   ").rstrip(";") for line in printed.splitlines() if line.startswith("--   GRANT")]
    login = {"LATELY_MYSQL_USER": user, "LATELY_MYSQL_PASSWORD": "secret"}
    stack.execute(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'")
    try:
        for grant in grants:
            stack.execute(grant.replace("'lately'@'%'", f"'{user}'@'%'"))
        setup = stack.lately("source", "setup", "--all", **login)
        assert setup.child.returncode == 0, setup.tail()
        source = stack.source(**login)
        stack.insert(order(2))
        stack.execute("UPDATE orders SET price = 2")
        eventually(stack.assert_topic_equals_sql, within=30)
        check = stack.lately("source", "check", **login)
        assert check.child.returncode == 0, check.tail()
        assert "warning" not in check.tail(100), check.tail()
        eventually(lambda: stack.status()["guarantee"] == "proven", within=30)
        # The triggers get new bodies while the source publishes.
        stack.execute("ALTER TABLE orders ADD COLUMN paid_by VARCHAR(20) NULL")
        renewed = stack.lately("source", "setup", **login, LATELY_SOURCE_COLUMNS="payment_method=paid_by")
        assert renewed.child.returncode == 0, renewed.tail()
        stack.insert(order(3))
        eventually(lambda: "o3" in {event["data"]["order_id"] for event in stack.events()}, within=30)
        source.stop()
        removed = stack.lately("source", "teardown", "--force", **login)
        assert removed.child.returncode == 0, removed.tail()
        stack.insert(order(4))
    finally:
        stack.execute(f"DROP USER '{user}'@'%'")


@pytest.mark.mysql_only("the MariaDB of the tests has no binary log")
def test_a_source_says_why_it_waits_when_the_binary_log_gets_statements(own_database: tuple[DatabaseServer, Stack]):
    _, stack = own_database
    stack.create_orders()
    stack.setup()
    source = stack.source()
    stack.insert(order(1))
    eventually(stack.outbox_is_empty, within=30)
    published = count_published(stack)

    stack.execute("SET GLOBAL binlog_format = STATEMENT")
    stack.kill_connections("root")
    # With the default isolation level the shop's statements are allowed.
    stack.insert(order(2))
    eventually(lambda: "binlog_format=STATEMENT" in source.tail(100), within=30)
    eventually(lambda: source.tail(400).count("SET GLOBAL binlog_format = ROW") >= 2, within=60)
    assert count_published(stack) == published, "the same rows were published again and again"

    stack.execute("SET GLOBAL binlog_format = ROW")
    eventually(stack.outbox_is_empty, within=60)
    stack.assert_topic_equals_sql()
    assert source.is_running
