"""What breaks in the middle of the stream: workers that come and go, an agent that fails, a broker that refuses."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from tests.kit.eventually import eventually
from tests.kit.orders import CUSTOMERS, OPENING, count_published, place_orders, start_shop
from tests.kit.stack import Stack, Worker

pytestmark = pytest.mark.partitions(4)


@pytest.mark.slow
@pytest.mark.cost(33)
def test_workers_that_join_leave_and_die_in_mid_stream_lose_and_double_nothing(stack: Stack):
    first = start_shop(stack)
    dice = random.Random(7)
    stopping = threading.Event()
    with ThreadPoolExecutor() as shop:
        trading = shop.submit(place_orders, stack, 30_000, stopping=stopping)
        try:
            for name, end in [("second", Worker.stop), ("third", Worker.kill), ("second", Worker.kill)]:
                other, least = stack.worker(name).start().wait_ready(), dice.randrange(1, 200)
                eventually(lambda other=other, least=least: other.events() >= least, within=60)
                end(other)
        finally:
            stopping.set()
        trading.result()
    eventually(stack.outbox_is_empty, within=60)
    eventually(lambda: stack.assert_equal_to_sql(first, CUSTOMERS), within=60)


@pytest.mark.cost(18)
def test_an_agent_that_fails_ends_the_worker_and_the_next_one_goes_on_where_it_failed(stack: Stack, kafka: str):
    worker = start_shop(stack)
    place_orders(stack, 300)
    eventually(lambda: stack.assert_equal_to_sql(worker, CUSTOMERS), within=30)
    child = worker.process.child
    worker.stop()
    assert child.returncode == 0
    stack.wipe(worker)

    changelog = f"{stack.name}-by_user-changelog"
    good = {record.key(): record.value() for record in stack.records_of(changelog)}[b"user-1"]
    stack.publish_to(changelog, (b"user-1", msgspec.msgpack.encode([99, None, []])))
    place_orders(stack, 300, first=300)
    eventually(stack.outbox_is_empty, within=60)

    failing = stack.worker().start()
    eventually(lambda: not failing.process.is_running, within=60)
    assert failing.process.child.returncode == 1
    assert "has format 99, this version reads 3" in failing.process.tail(400)

    stack.publish_to(changelog, (b"user-1", good))
    mended = stack.worker().start().wait_ready()
    eventually(lambda: stack.assert_equal_to_sql(mended, CUSTOMERS), within=60)


def test_a_refused_changelog_record_ends_the_worker_and_nothing_after_it_is_committed(stack: Stack, kafka: str):
    worker = start_shop(stack)
    place_orders(stack, 120)
    eventually(lambda: stack.assert_equal_to_sql(worker, CUSTOMERS), within=30)
    eventually(lambda: stack.committed("orders") == 120, within=30)
    limit_changelog(kafka, stack, "2000")
    orders = count(120)

    def has_ended() -> bool:
        # A busy broker obeys the new limit some time later, and accepts the first of these orders.
        stack.insert(*((f"long{next(orders)}", "x" * 250, "user-1", "1.00", OPENING, "card") for _ in range(12)))
        return not worker.process.is_running

    eventually(has_ended, within=60)
    assert worker.process.child.returncode == 1
    assert "Kafka refused a batch of records" in worker.process.tail(400)
    assert stack.committed("orders") < next(orders)

    limit_changelog(kafka, stack, "1048588")
    stack.wipe(worker)
    again = stack.worker().start().wait_ready()
    eventually(lambda: stack.assert_equal_to_sql(again, CUSTOMERS), within=60)


def limit_changelog(kafka: str, stack: Stack, limit: str) -> None:
    """Let the broker take only values up to `limit` bytes for the table by_user."""
    admin = AdminClient({"bootstrap.servers": kafka})
    entry = ConfigEntry("max.message.bytes", limit, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource("topic", f"{stack.name}-by_user-changelog", incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result()


@pytest.mark.slow
def test_a_source_killed_again_and_again_publishes_exactly_what_was_committed(stack: Stack):
    stack.create_orders()
    stack.setup()
    dice = random.Random(3)
    with ThreadPoolExecutor(8) as shop:
        writers = [shop.submit(write, stack, writer, 150) for writer in range(8)]
        while not all(writer.done() for writer in writers):
            source = stack.source(LATELY_SOURCE_BATCH_ROWS="20")
            least = count_published(stack) + dice.randrange(1, 200)
            eventually(lambda least=least: count_published(stack) > least or all(w.done() for w in writers), within=60)
            source.kill()
        for writer in writers:
            writer.result()
    stack.source()
    eventually(stack.outbox_is_empty, within=60)
    published = {}
    for record in stack.records("orders"):
        event = msgspec.json.decode(record.value())
        data = event["data"]
        identity = (data["order_id"], data["product_name"])
        published[identity] = max(published.get(identity, (0, "")), (data["version"], event["type"]))
    live = {identity for identity, (_, kind) in published.items() if kind != "order.removed"}
    assert live == set(stack.select("SELECT order_id, product_name FROM orders"))
    gone = {identity for identity, (_, kind) in published.items() if kind == "order.removed"}
    assert gone, "the writers removed some"


def write(stack: Stack, writer: int, orders: int) -> None:
    """One of many customers at once: two lines per order, a tenth rolled back, some removed again."""
    dice = random.Random(writer)
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        for number in range(orders):
            order = f"w{writer}-{number}"
            cursor.execute(
                "INSERT IGNORE INTO orders VALUES (%s, 'Phone', 'ann', 1, NOW(6), 'card', NULL),"
                " (%s, 'Case', 'ann', 1, NOW(6), 'card', NULL)",
                (order, order),
            )
            if dice.random() < 0.1:
                connection.rollback()
                continue
            connection.commit()
            if dice.random() < 0.1:
                cursor.execute("DELETE FROM orders WHERE order_id = %s AND product_name = 'Case'", (order,))
                connection.commit()


def test_the_first_orders_of_a_shop_that_arrive_while_a_second_worker_joins_are_not_lost(stack: Stack, kafka: str):
    first = stack.worker(LATELY_PARTITIONS="8").start().wait_ready()
    users = [f"new-{number}" for number in range(60)]
    # The moment in which nothing was ever committed and every partition is between two owners lasts milliseconds.
    producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random", "linger.ms": 0})
    producer.list_topics(stack.topic("orders"), timeout=10)
    with first.process.log.open() as log:
        log.read()
        second = stack.worker("second", LATELY_PARTITIONS="8").start()
        end = time.monotonic() + 30
        while "Revoking previously" not in log.read() and time.monotonic() < end:
            pass
    for number, user in enumerate(users):
        key, value = record(user, number)
        producer.produce(stack.topic("orders"), value, key)
    assert producer.flush(30) == 0
    for worker in (first, second):
        worker.wait_ready()
        eventually(lambda worker=worker: all_have_one(worker, users), within=30)


def all_have_one(worker: Worker, users: list[str]) -> None:
    """Every user has exactly one purchase."""
    counts = {user: len(worker.purchases(user)) for user in users}
    assert counts == dict.fromkeys(users, 1)


def record(user: str, number: int, **extra: object) -> tuple[bytes, bytes]:
    """A record for the topic orders."""
    document = {
        "specversion": "1.0",
        "id": str(number),
        "source": "/test",
        "type": "order.placed",
        "time": "2026-01-31T12:00:00Z",
        "dataschema": "urn:lately:schema:order:1",
        "data": {
            "user_id": user,
            "order_id": number,
            "product_name": "Phone",
            "price": "1.00",
            "ordered_at": "2026-01-31T12:00:00Z",
            "version": number,
        },
        **extra,
    }
    return user.encode(), msgspec.json.encode(document)


def test_a_large_record_that_the_broker_took_compressed_becomes_a_dead_letter(stack: Stack, kafka: str):
    worker = stack.worker().start().wait_ready()
    producer = Producer(
        {"bootstrap.servers": kafka, "partitioner": "murmur2_random", "compression.type": "gzip",
         "message.max.bytes": 9_000_000}
    )  # fmt: skip
    for size in (950_000, 2_000_000, 6_000_000):
        key, value = record("ann", 1, note="x" * size)
        producer.produce(stack.topic("orders"), value, key)
    assert producer.flush(30) == 0
    stack.publish("orders", record("ann", 2))
    eventually(lambda: all_have_one(worker, ["ann"]), within=30)
    eventually(lambda: len(stack.records("orders-dead")) == 3, within=30)
    reasons = {dict(letter.headers())["__lately.errors.exception"] for letter in stack.records("orders-dead")}
    assert reasons == {b"too-large"}
    assert worker.process.is_running


def test_a_worker_that_is_told_to_stop_answers_503_or_nothing_and_never_wrong(stack: Stack):
    worker = start_shop(stack)
    place_orders(stack, 60)
    eventually(lambda: stack.assert_equal_to_sql(worker, CUSTOMERS), within=30)
    stopping = threading.Event()

    def ask() -> set:
        seen = set()
        while not stopping.is_set():
            try:
                answer = worker.get("/v1/users/user-1/purchases")
                seen.add((answer.status, len(answer.json.get("purchases", []))))
            except OSError:
                seen.add("refused")
        return seen

    with ThreadPoolExecutor() as clients:
        asking = clients.submit(ask)
        worker.stop()
        stopping.set()
    assert asking.result() <= {(200, 1), (503, 0), "refused"}


@pytest.mark.slow
def test_a_source_whose_connections_are_killed_goes_on_and_loses_nothing(stack: Stack):
    stack.create_orders()
    stack.setup()
    source = stack.source()
    place_orders(stack, 50)
    eventually(stack.outbox_is_empty, within=30)
    ids = stack.select("SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()")
    for (number,) in ids:
        stack.execute(f"KILL CONNECTION {number}")
    place_orders(stack, 50, first=50)
    eventually(stack.outbox_is_empty, within=30)
    published = {msgspec.json.decode(one.value())["data"]["order_id"] for one in stack.records("orders")}
    assert published == {f"o{number:05}" for number in range(100)}
    assert source.is_running
    assert "nothing is lost" in source.tail(200)


@pytest.mark.cost(18)
def test_a_worker_frozen_for_longer_than_its_session_ends_when_it_wakes_and_harms_nobody(stack: Stack):
    frozen = start_shop(stack)
    place_orders(stack, 120)
    eventually(lambda: stack.assert_equal_to_sql(frozen, CUSTOMERS), within=30)
    other = stack.worker("other").start().wait_ready()
    os.kill(frozen.process.pid, signal.SIGSTOP)
    try:
        place_orders(stack, 120, first=120)
        eventually(lambda: stack.assert_equal_to_sql(other, CUSTOMERS), within=60)
    finally:
        os.kill(frozen.process.pid, signal.SIGCONT)
    eventually(lambda: not frozen.process.is_running, within=10)
    assert frozen.process.child.returncode == 70
    assert "another worker has taken over" in frozen.process.tail()
    place_orders(stack, 60, first=240)
    eventually(lambda: stack.assert_equal_to_sql(other, CUSTOMERS), within=60)
