"""Online schema changes with the statements of gh-ost and pt-online-schema-change, while the shop writes."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime

import mysql.connector
import pytest

from source.installed_triggers import EVENTS
from tests.kit.eventually import eventually
from tests.kit.stack import Stack, Worker

pytestmark = [pytest.mark.both_databases, pytest.mark.slow_on("mariadb"), pytest.mark.cost(30)]

AT = datetime(2026, 1, 31, 12)
USERS = [f"user-{number}" for number in range(5)]
KEY = "a.order_id <=> b.order_id AND a.product_name <=> b.product_name"
COLUMNS = "order_id, product_name, user_id, price, ordered_at, payment_method, category"
ALTER = "ADD COLUMN note VARCHAR(20) NULL, MODIFY payment_method VARCHAR(40) NULL"


@contextmanager
def trading(shop: Stack, writers: int = 3) -> Iterator[list[int]]:
    """Customers who place, change and cancel orders until the end of the block; yields their numbers of statements."""
    stopping, statements = threading.Event(), [0] * writers

    def trade(writer: int) -> None:
        dice = random.Random(writer)
        with closing(shop.connect()) as connection, closing(connection.cursor()) as cursor:
            number = 0
            while not stopping.is_set():
                number += 1
                order = f"w{writer}-{dice.randrange(1, number + 1):05}"
                try:
                    cursor.execute(
                        f"INSERT INTO orders ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, 'card', NULL)",
                        (f"w{writer}-{number:05}", f"Product {number % 3}", USERS[number % 5], number % 90, AT),
                    )
                    if number % 2:
                        cursor.execute("UPDATE orders SET price = price + 1 WHERE order_id = %s", (order,))
                    if number % 5 == 0:
                        cursor.execute("DELETE FROM orders WHERE order_id = %s", (order,))
                    connection.commit()
                except mysql.connector.Error:
                    connection.rollback()  # a deadlock, or a table that is being swapped
                statements[writer] = number
                stopping.wait(0.02)

    with ThreadPoolExecutor(writers) as pool:
        futures = [pool.submit(trade, writer) for writer in range(writers)]
        try:
            yield statements
        finally:
            stopping.set()
        for future in futures:
            future.result()


def wait_for_trade(statements: list[int], more: int = 20) -> None:
    """Return when every customer has done some more."""
    before = list(statements)
    eventually(lambda: all(now >= was + more for now, was in zip(statements, before, strict=True)), within=60)


@pytest.fixture
def shop(stack: Stack) -> Stack:
    """A shop that is set up, with some orders."""
    stack.create_orders()
    stack.insert(*[(f"o{n:05}", f"Product {n % 3}", USERS[n % 5], "19.90", AT, "card") for n in range(100)])
    stack.setup(None)
    return stack


@pytest.fixture
def worker(shop: Stack) -> Worker:
    """A source and a worker."""
    shop.source()
    return shop.worker(LATELY_SIMILAR="0").start().wait_ready()


def triggers_of(shop: Stack) -> dict[str, str]:
    """Event -> body of the shop's triggers."""
    rows = shop.select(
        "SELECT event_manipulation, action_statement FROM information_schema.triggers"
        " WHERE trigger_schema = DATABASE() AND event_object_table = 'orders'"
    )
    texts = [[value.decode() if isinstance(value, bytes) else value for value in row] for row in rows]
    return {event.lower(): body for event, body in texts}


def create_triggers(shop: Stack, bodies: dict[str, str], table: str, suffix: str) -> None:
    """Carry triggers over to another table."""
    for event in EVENTS:
        shop.execute(
            f"CREATE TRIGGER lately_{event}{suffix} AFTER {event.upper()} ON {table} FOR EACH ROW {bodies[event]}"
        )


def gh_ost(shop: Stack, statements: list[int], include_triggers: bool) -> None:
    """Copy into a ghost table, apply the rest while the table is locked, and swap."""
    bodies = triggers_of(shop)
    shop.execute("CREATE TABLE _orders_gho LIKE orders")
    shop.execute(f"ALTER TABLE _orders_gho {ALTER}")
    shop.execute(f"INSERT IGNORE INTO _orders_gho ({COLUMNS}) SELECT {COLUMNS} FROM orders LOCK IN SHARE MODE")
    wait_for_trade(statements)
    with closing(shop.connect()) as lock, closing(lock.cursor()) as cursor, ThreadPoolExecutor(1) as pool:
        cursor.execute("LOCK TABLES orders READ")
        # What gh-ost has read in the binary log until it locked the table.
        shop.execute(f"DELETE b FROM _orders_gho AS b LEFT JOIN orders AS a ON {KEY} WHERE a.order_id IS NULL")
        shop.execute(f"REPLACE INTO _orders_gho ({COLUMNS}) SELECT {COLUMNS} FROM orders")
        if include_triggers:
            create_triggers(shop, bodies, "_orders_gho", "_gho")
        swap = pool.submit(shop.execute, "RENAME TABLE orders TO _orders_del, _orders_gho TO orders")
        waits = (
            "SELECT COUNT(*) FROM information_schema.processlist"
            " WHERE info LIKE 'RENAME%' AND db = DATABASE() AND state LIKE 'Waiting for table%'"
        )
        eventually(lambda: shop.select(waits) == [(1,)], within=20)
        cursor.execute("UNLOCK TABLES")
        swap.result()


def pt_online_schema_change(shop: Stack, statements: list[int]) -> None:
    """Copy into a new table that triggers keep equal, carry the other triggers over (--preserve-triggers), and swap."""
    bodies = triggers_of(shop)
    shop.execute("CREATE TABLE _orders_new LIKE orders")
    shop.execute(f"ALTER TABLE _orders_new {ALTER}")
    old_key = "_orders_new.order_id <=> OLD.order_id AND _orders_new.product_name <=> OLD.product_name"
    same_key = "OLD.order_id <=> NEW.order_id AND OLD.product_name <=> NEW.product_name"
    new_values = ", ".join(f"NEW.{name.strip()}" for name in COLUMNS.split(","))
    replace = f"REPLACE INTO _orders_new ({COLUMNS}) VALUES ({new_values})"
    for event, body in {
        "delete": f"DELETE IGNORE FROM _orders_new WHERE {old_key}",
        "update": f"BEGIN DELETE IGNORE FROM _orders_new WHERE NOT ({same_key}) AND {old_key}; {replace}; END",
        "insert": replace,
    }.items():
        shop.execute(f"CREATE TRIGGER pt_osc_{event} AFTER {event.upper()} ON orders FOR EACH ROW {body}")
    wait_for_trade(statements)
    shop.execute(
        f"INSERT LOW_PRIORITY IGNORE INTO _orders_new ({COLUMNS}) SELECT {COLUMNS} FROM orders LOCK IN SHARE MODE"
    )
    create_triggers(shop, bodies, "_orders_new", "_pt")
    wait_for_trade(statements)
    shop.execute("RENAME TABLE orders TO _orders_old, _orders_new TO orders")
    shop.execute("DROP TABLE _orders_old")


def verify_and_repair(shop: Stack, worker: Worker) -> None:
    """What the log names as the next step."""
    repaired = shop.lately("verify", "--repair", "--worker", f"http://127.0.0.1:{worker.port}")
    assert repaired.child.returncode == 0, repaired.tail()
    eventually(lambda: shop.assert_equal_to_sql(worker, USERS), within=60)
    eventually(lambda: shop.status()["guarantee"] == "proven", within=30)


def kinds(shop: Stack) -> set[str]:
    """The problems of the source."""
    return {problem["kind"] for problem in shop.status()["problems"]}


@pytest.mark.slow
def test_gh_ost_without_triggers_is_reported_and_exact_after_setup_and_verify(shop: Stack, worker: Worker):
    with trading(shop) as statements:
        wait_for_trade(statements)
        gh_ost(shop, statements, include_triggers=False)
        wait_for_trade(statements)
        eventually(lambda: "trigger-missing" in kinds(shop), within=30)
        assert "they are on _orders_del" in shop.status()["reasons"]
        shop.execute("DROP TABLE _orders_del")
        shop.setup(None)
        eventually(lambda: kinds(shop) == set(), within=30)
        wait_for_trade(statements)
    verify_and_repair(shop, worker)


def test_gh_ost_that_carries_the_triggers_over_misses_nothing(shop: Stack, worker: Worker):
    with trading(shop) as statements:
        wait_for_trade(statements)
        gh_ost(shop, statements, include_triggers=True)
        wait_for_trade(statements)
        eventually(lambda: kinds(shop) == {"missed", "trigger-elsewhere"}, within=30)
        shop.execute("DROP TABLE _orders_del")
        wait_for_trade(statements)
    eventually(shop.assert_topic_equals_sql, within=20)
    verify_and_repair(shop, worker)
    assert kinds(shop) == set()


@pytest.mark.slow
def test_pt_online_schema_change_that_preserves_the_triggers_is_reported_and_exact_after_verify(
    shop: Stack, worker: Worker
):
    # Between the creation of two triggers, a REPLACE of the tool runs only the one for DELETE.
    with trading(shop) as statements:
        wait_for_trade(statements)
        pt_online_schema_change(shop, statements)
        wait_for_trade(statements)
        eventually(lambda: kinds(shop) == {"missed"}, within=30)
    verify_and_repair(shop, worker)
    assert kinds(shop) == set()
