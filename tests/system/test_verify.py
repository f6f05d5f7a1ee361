"""`lately verify` finds exactly what differs from the shop's database, mends it, and finds nothing under load."""

from __future__ import annotations

import json
import math
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest
from confluent_kafka import Producer

from domain.partitioning import partition_of
from local.process import LocalProcess
from tests.kit.commands import start_lately, verify
from tests.kit.eventually import eventually
from tests.kit.stack import Stack, Worker

pytestmark = pytest.mark.both_databases

USERS = [f"user-{number}" for number in range(30)]

#: How long the slow variant compares the tables while orders flow; a release is tried with 600.
SECONDS_UNDER_LOAD = float(os.environ.get("VERIFY_SECONDS", "30"))


@pytest.fixture
def worker(stack: Stack) -> Worker:
    """A worker without what is not verified."""
    stack.create_orders()
    return stack.worker(LATELY_SIMILAR="0").start()


def rows(count: int, users: list[str] = USERS, first: int = 0) -> list[tuple]:
    return [
        (f"o{number:05}", f"Product {number % 7}", users[number % len(users)], f"{number % 50}.50",
         f"2026-01-31 {number % 24:02}:00:00.{number:06}", "card")
        for number in range(first, first + count)
    ]  # fmt: skip


def begin(stack: Stack, worker: Worker, *orders: tuple) -> LocalProcess:
    """A source and a worker that know all of these orders; returns the source."""
    stack.insert(*orders)
    stack.setup(since=None)
    source = stack.source()
    worker.wait_ready()
    wait_equal(stack, worker)
    return source


def wait_equal(stack: Stack, worker: Worker, users: list[str] = USERS) -> None:
    def equal() -> bool:
        truths = stack.truths()
        return all(worker.purchases(user) == truths[user] for user in users)

    eventually(equal, within=60)


def found(differences: list[dict]) -> set[tuple]:
    return {(one["kind"], one["user_id"], one["order_id"], one["product_name"]) for one in differences}


@contextmanager
def without_triggers(stack: Stack) -> Iterator[None]:
    """What is written meanwhile is not captured."""
    names = [name for (name,) in stack.select("SELECT trigger_name FROM information_schema.triggers"
                                              " WHERE trigger_schema = DATABASE()")]  # fmt: skip
    made = [stack.select(f"SHOW CREATE TRIGGER `{name}`")[0][2] for name in names]
    assert made
    for name in names:
        stack.execute(f"DROP TRIGGER `{name}`")
    yield
    for statement in made:
        stack.execute(statement)


def test_every_kind_of_damage_is_found_exactly_repaired_and_gone(stack: Stack, worker: Worker):
    source = begin(stack, worker, *rows(300))
    assert verify(stack, worker)[:2] == (0, [])
    source.stop()
    with without_triggers(stack):
        stack.insert(("new", "Phone", "user-1", "5.00", "2026-02-01 00:00:00", "card"))
        stack.insert(("first", "Phone", "somebody new", "5.00", "2026-02-01 00:00:00", "card"))
        stack.execute("DELETE FROM orders WHERE order_id = 'o00002'")
        stack.execute("UPDATE orders SET price = 77.70 WHERE order_id = 'o00003'")
        stack.execute("UPDATE orders SET ordered_at = '2026-03-01 00:00:00' WHERE order_id = 'o00004'")
        stack.execute("UPDATE orders SET user_id = 'user-9' WHERE order_id = 'o00005'")
        stack.execute("DELETE FROM orders WHERE user_id = 'user-6'")
    stack.source()
    gone = {("extra", "user-6", f"o{number:05}", f"Product {number % 7}") for number in range(6, 300, 30)}
    expected = gone | {
        ("missing", "user-1", "new", "Phone"),
        ("missing", "somebody new", "first", "Phone"),
        ("extra", "user-2", "o00002", "Product 2"),
        ("changed", "user-3", "o00003", "Product 3"),
        ("changed", "user-4", "o00004", "Product 4"),
        ("extra", "user-5", "o00005", "Product 5"),
        ("missing", "user-9", "o00005", "Product 5"),
    }
    before = stack.high_watermark("orders")
    code, differences, outcome = verify(stack, worker)
    assert (code, found(differences)) == (3, expected)
    assert (outcome["differences"], outcome["repaired"], outcome["deferred"]) == (len(expected), 0, 0)
    (changed,) = [one for one in differences if one["order_id"] == "o00003"]
    assert (changed["database"]["price"], changed["table"]["price"]) == ("77.70", "3.50")
    assert found(verify(stack, worker, "--user", "user-3", "--user", "user-8")[1]) == {
        ("changed", "user-3", "o00003", "Product 3")
    }
    assert stack.high_watermark("orders") == before
    code, differences, outcome = verify(stack, worker, "--repair")
    assert (code, found(differences), outcome["repaired"]) == (0, expected, len(expected))
    # Only what differs is published.
    assert stack.high_watermark("orders") == before + len(expected)
    assert verify(stack, worker, "--repair")[:2] == (0, [])
    assert stack.high_watermark("orders") == before + len(expected)
    eventually(lambda: stack.assert_equal_to_sql(worker, [*USERS, "somebody new"]), within=20)
    # What was repaired goes on as if nothing had been.
    stack.execute("UPDATE orders SET price = 1.00 WHERE order_id IN ('o00003', 'new')")
    stack.execute("DELETE FROM orders WHERE order_id = 'o00004'")
    wait_equal(stack, worker)


def test_events_that_no_row_stands_for_are_found_and_taken_back(stack: Stack, worker: Worker):
    begin(stack, worker, *rows(60))
    phantom, wrong, lost = ({**one, "data": {**one["data"]}} for one in stack.events()[:3])
    phantom = {**phantom, "type": "order.placed", "data": {**phantom["data"], "order_id": "never was"}}
    wrong["data"] = {**wrong["data"], "price": "9999.00", "version": wrong["data"]["version"] + 1}
    lost = {**lost, "type": "order.removed", "data": {**lost["data"], "version": lost["data"]["version"] + 1}}
    for one in (phantom, wrong, lost):
        stack.publish("orders", (one["data"]["user_id"].encode(), json.dumps(one).encode()))
    user = phantom["data"]["user_id"]
    eventually(lambda: "never was" in [one[0] for one in worker.purchases(user)], within=20)
    code, differences, _ = verify(stack, worker)
    assert (code, Counter(one["kind"] for one in differences)) == (3, Counter("extra changed missing".split()))
    code, _, outcome = verify(stack, worker, "--repair")
    assert (code, outcome["repaired"]) == (0, 3)
    # The totals follow the repaired purchases a moment later.
    eventually(lambda: stack.assert_equal_to_sql(worker, USERS), within=20)


def test_what_fires_no_triggers_is_found_and_a_repair_killed_in_the_middle_is_finished_by_the_next(
    stack: Stack, worker: Worker
):
    users = [f"user-{number}" for number in range(1_500)]
    stack.execute("CREATE TABLE customers (id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY)")
    stack.execute(f"INSERT INTO customers VALUES {', '.join(['(%s)'] * len(users))}", tuple(users))
    stack.execute("ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES customers (id) ON DELETE CASCADE")
    begin(stack, worker, *rows(3_000, users))
    eventually(lambda: worker.get("/v1/users/user-1/purchases").json["meta"]["unseen"] == ["cascade"], within=10)
    stack.execute("DELETE FROM customers WHERE id NOT IN ('user-1', 'user-2')")
    assert stack.select("SELECT COUNT(*) FROM orders") == [(4,)]
    before = stack.high_watermark("orders")
    url = f"http://127.0.0.1:{worker.port}"
    repair = start_lately(stack, "verify", "--repair", "--worker", url)
    eventually(lambda: stack.high_watermark("orders") > before, within=60)
    repair.kill()
    left = 2_996 - (stack.high_watermark("orders") - before)
    assert left > 0
    eventually(lambda: worker.events() >= stack.high_watermark("orders"), within=30)
    code, _, outcome = verify(stack, worker, "--repair")
    assert (code, outcome["extra"], outcome["repaired"]) == (0, left, left)
    stack.execute("TRUNCATE TABLE orders")
    code, differences, _ = verify(stack, worker, "--repair")
    assert (code, len(differences)) == (0, 4)
    assert all(worker.purchases(user) == [] for user in ("user-1", "user-2", "user-3"))
    assert verify(stack, worker)[:2] == (0, [])


@pytest.mark.slow_on("mariadb")
@pytest.mark.cost(18)
@pytest.mark.parametrize("seconds", [4, pytest.param(SECONDS_UNDER_LOAD, marks=pytest.mark.slow)])
def test_nothing_is_reported_while_orders_come_change_and_go(stack: Stack, worker: Worker, seconds: float):
    begin(stack, worker, *rows(200))
    ended = threading.Event()

    def trade() -> None:
        dice = random.Random(7)
        number = 200
        # Some 100 orders a second, of ever new users beside those of before.
        while not ended.wait(0.03):
            stack.insert(*rows(3, [*USERS[:2], f"shopper-{number // 30}"], first=number))
            stack.execute("UPDATE orders SET price = price + 1 WHERE order_id = %s", (f"o{dice.randrange(number):05}",))
            stack.execute("DELETE FROM orders WHERE order_id = %s", (f"o{dice.randrange(number):05}",))
            number += 3

    shop = threading.Thread(target=trade)
    shop.start()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            code, differences, outcome = verify(stack, worker)
            assert (code, differences) == (0, [])
            assert outcome["rows"] > 100
        some = [word for user in USERS[:5] for word in ("--user", user)]
        code, differences, _ = verify(stack, worker, *some)
        assert (code, differences) == (0, [])
    finally:
        ended.set()
        shop.join()
    wait_equal(stack, worker)


@pytest.mark.one_database("no server is asked")
@pytest.mark.cost(20)
def test_a_server_that_is_away_is_no_difference(stack: Stack, worker: Worker):
    source = begin(stack, worker, *rows(3))
    url = f"http://127.0.0.1:{worker.port}"
    assert stack.lately("verify", "--worker", url, LATELY_MYSQL_PORT="1").child.returncode == 75
    assert stack.lately("verify", "--worker", url, LATELY_KAFKA="127.0.0.1:1").child.returncode == 75
    assert stack.lately("verify", "--user", "").child.returncode == 2
    source.stop()

    def says_so() -> bool:
        process = stack.lately("verify", "--worker", url, "--user", "user-1")
        return process.child.returncode == 75 and "start `lately source`" in process.tail()

    eventually(says_so, within=40)
    worker.stop()
    process = stack.lately("verify", "--worker", url)
    assert (process.child.returncode, "start it, or give --worker" in process.tail()) == (75, True)


@pytest.mark.one_database("it reads a table of the worker only")
def test_a_partition_of_a_table_is_shown_as_it_is_committed(stack: Stack, worker: Worker):
    begin(stack, worker, *rows(3))
    number = partition_of(b"user-1", stack.partitions)
    answer = worker.get(f"/v1/tables/by_user/{number}?key={b'user-1'.hex()}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/msgpack")
    assert b"o00001" in answer.body
    assert worker.get(f"/v1/tables/by_user/{stack.partitions}").json["code"] == "invalid-parameter"
    assert worker.get("/v1/tables/by_user/0?key=xyz").json["code"] == "invalid-parameter"
    assert worker.get("/v1/tables/nothing/0").json["code"] == "not-found"


@pytest.mark.one_database("the marker is in Kafka")
def test_a_transaction_marker_at_the_end_of_orders_holds_up_neither_freshness_nor_verify(stack: Stack, worker: Worker):
    source = begin(stack, worker, *rows(3))
    source.stop()
    one = json.dumps(stack.events()[0]).encode()
    for number in range(stack.partitions):
        producer = Producer({"bootstrap.servers": stack.servers.kafka, "transactional.id": f"{stack.name}-{number}"})
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(stack.topic("orders"), one, b"user-0", partition=number)
        producer.commit_transaction(20)
    worker.stop()
    worker.start()
    stack.source()
    worker.wait_ready()
    began = time.time()

    def fresh(user: str) -> bool:
        as_of = worker.get(f"/v1/users/{user}/purchases").json["meta"]["as_of"]
        return as_of is not None and datetime.fromisoformat(as_of.replace("Z", "+00:00")).timestamp() > began

    eventually(lambda: all(fresh(user) for user in USERS), within=30)
    assert verify(stack, worker)[:2] == (0, [])


@pytest.mark.one_database("the result of a verification is in Kafka")
def test_answers_say_up_to_when_they_are_proven_as_long_as_nothing_differs(stack: Stack, worker: Worker):
    begin(stack, worker, *rows(30))

    def verified_at() -> str | None:
        return worker.get("/v1/users/user-1/purchases").json["meta"]["verified_at"]

    def metric(name: str) -> float:
        (line,) = [line for line in worker.get("/metrics").text.splitlines() if line.startswith(name)]
        return float(line.rpartition(" ")[2])

    assert verified_at() is None
    assert math.isnan(metric("lately_verify_age_seconds"))
    eventually(lambda: 0 <= metric("lately_source_silent_seconds") < 5, within=20)
    url = f"http://127.0.0.1:{worker.port}"
    verifying = start_lately(stack, "verify", "--continuous", "--every", "0", "--worker", url)
    first = eventually(lambda: verified_at() or False, within=30)
    eventually(lambda: verified_at() > first, within=30)
    assert 0 <= metric("lately_verify_age_seconds") < 30
    stack.execute("TRUNCATE TABLE orders")
    eventually(lambda: metric('lately_verify_differences{kind="extra"}') == 30, within=30)
    last = verified_at()
    assert "30 extra" in worker.get("/operator").text
    verifying.kill()
    assert verify(stack, worker, "--repair")[2]["repaired"] == 30
    eventually(lambda: verified_at() > last, within=10)
    assert metric('lately_verify_differences{kind="extra"}') == 0
