"""What a worker does when Kafka has lost what its tables are made of: it is told, made anew, and exact again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from chunks import BEGINNING_KEY, Store
from tests.kit.commands import FAULTY_WORKER
from tests.kit.eventually import eventually
from tests.kit.stack import Stack, Worker

NOW = datetime(2026, 1, 31, 12)
USERS = [f"user-{number}" for number in range(40)]
PARTITIONS = 4
pytestmark = pytest.mark.partitions(PARTITIONS)
PRODUCTS = 30


def trade(stack: Stack, first: int, orders: int) -> None:
    """New orders of all users; some of the older ones change, some go."""
    stack.insert(
        *(
            (f"o{number:05}", f"Phone {number % PRODUCTS}", USERS[number % len(USERS)], number % 100,
             NOW + timedelta(seconds=number // 3), "card")
            for number in range(first, first + orders)
        )
    )  # fmt: skip
    stack.execute("UPDATE orders SET price = price + 1 WHERE order_id = %s", (f"o{first // 2:05}",))
    stack.execute("DELETE FROM orders WHERE order_id = %s", (f"o{first // 3:05}",))


def changelog(stack: Stack, table: str) -> str:
    return f"{stack.name}-{table}-changelog"


def delete_topic(stack: Stack, *topics: str) -> None:
    admin = AdminClient({"bootstrap.servers": stack.servers.kafka})
    for one in admin.delete_topics(list(topics)).values():
        one.result()
    eventually(lambda: not set(topics) & set(admin.list_topics(timeout=10).topics), within=30)


def cut(stack: Stack, topic: str, share: float, policy: str = "compact") -> None:
    """Delete the first records of all partitions of a topic, as a retention does."""
    admin = AdminClient({"bootstrap.servers": stack.servers.kafka})

    def configure(value: str) -> None:
        entry = ConfigEntry("cleanup.policy", value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource("topic", topic, incremental_configs=[entry])
        admin.incremental_alter_configs([resource])[resource].result()

    configure("delete")
    with closing(Consumer({"bootstrap.servers": stack.servers.kafka, "group.id": "nobody"})) as reader:
        wanted = []
        for number in range(PARTITIONS):
            low, high = reader.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
            wanted.append(TopicPartition(topic, number, low + int((high - low) * share)))

    def deleted() -> bool:
        try:
            for one in admin.delete_records(wanted).values():
                one.result()
        except KafkaException as exc:
            # The broker takes a new policy over a moment after it has accepted it.
            if exc.args[0].code() != KafkaError.POLICY_VIOLATION:
                raise
            return False
        return True

    eventually(deleted)
    configure(policy)


def rebuilds(worker: Worker) -> dict[tuple[str, str], int]:
    """What was lost since the worker's start: (table, reason) -> partitions."""
    said = re.findall(r'lately_rebuilds_total\{reason="(\w+)",table="(\w+)"\} (\d+)', worker.get("/metrics").text)
    return {(table, reason): int(number) for reason, table, number in said}


def incomplete(worker: Worker) -> dict[str, int]:
    said = re.findall(r'lately_incomplete_partitions\{table="(\w+)"\} (\d+)', worker.get("/metrics").text)
    return {table: int(number) for table, number in said if int(number)}


def pairs(stack: Stack, worker: Worker) -> None:
    """How many users have both of two products is what SQL counts."""
    said = {}
    for number in range(PRODUCTS):
        answer = worker.get(f"/v1/products/Phone%20{number}/similar?limit=100&fallback=none")
        assert answer.status == 200, answer.text
        for row in answer.json["similar"]:
            said[f"Phone {number}", row["product_name"]] = row["reason"]["also_bought_by"]
    rows = stack.select(
        "SELECT a.product_name, b.product_name, COUNT(DISTINCT a.user_id) FROM orders a JOIN orders b"
        " ON a.user_id = b.user_id AND a.product_name <> b.product_name GROUP BY a.product_name, b.product_name"
    )
    assert said == {(one, other): count for one, other, count in rows}


def exact(stack: Stack, worker: Worker) -> None:
    """Every purchase, every total and every pair is what SQL says."""
    truths = stack.truths(100)
    for user in USERS:
        assert worker.purchases(user, 100) == truths[user], user
    stack.assert_equal_to_sql(worker, USERS)
    pairs(stack, worker)


@pytest.mark.cost(60)
def test_tables_whose_changelogs_are_lost_are_made_anew_and_exact(stack: Stack):
    stack.create_orders()
    stack.setup()
    stack.source()
    worker = stack.worker().start().wait_ready()
    # Few: the old disk stays behind the beginnings of the later changelogs.
    trade(stack, 0, 60)
    eventually(lambda: exact(stack, worker), within=60)
    orders, old = 60, stack.folder / "old"

    def lose(expected: dict[tuple[str, str], int], damage: Callable[[], object], more: int = 40) -> None:
        nonlocal worker, orders
        worker.stop()
        if not old.exists():
            shutil.copytree(worker.folder, old)
        damage()
        trade(stack, orders, more)
        orders += more
        worker = stack.worker().start().wait_ready(within=60)
        assert rebuilds(worker) == expected
        assert all(f"{table}[1]: " in worker.process.tail(400) for table, _ in expected)
        eventually(lambda: exact(stack, worker), within=30)
        assert incomplete(worker) == {}

    def every(reason: str, *tables: str) -> dict[tuple[str, str], int]:
        return {(table, reason): PARTITIONS for table in tables}

    def deleted(*tables: str, disk: str = "lost") -> None:
        delete_topic(stack, *(changelog(stack, table) for table in tables))
        if disk == "lost":
            stack.wipe(worker)

    def emptied(table: str, share: float) -> None:
        cut(stack, changelog(stack, table), share)

    lose(every("emptied", "by_user", "by_product"), lambda: deleted("by_user", "by_product", disk="kept"), 540)
    chain = ("product_partials", "baskets", "similar")
    lose(every("emptied", *chain), lambda: deleted(*chain))
    lose(every("emptied", "by_user", "product_partials"), lambda: deleted("by_user", "product_partials"))
    # A retention that took everything, or a half that this worker's disk still has.
    half_and_all = {**every("emptied", "by_user"), **every("cut", "similar")}
    lose(half_and_all, lambda: (emptied("by_user", 1.0), emptied("similar", 0.5)))
    # A half without the disk; the worker is killed when it has rebuilt the first partition and a part of the second.
    expected = {("by_user", "interrupted"): 1, ("by_user", "emptied"): PARTITIONS - 2}
    lose(expected, lambda: (emptied("by_user", 0.5), stack.wipe(worker), killed_in_the_middle(stack)))
    # The disk is ahead of the changelog, which is the same: its end was lost.
    lose({("by_user", "short"): 1}, lambda: move(worker, "by_user-1.db"))
    # A disk from before all of that belongs to other changelogs, and is not trusted.
    worker.stop()
    stack.wipe(worker)
    shutil.copytree(old, worker.folder)
    worker = stack.worker().start().wait_ready()
    assert rebuilds(worker) == {}
    assert "it belongs to another changelog" in worker.process.tail(400)
    exact(stack, worker)


def move(worker: Worker, name: str) -> None:
    """Let a partition on disk have read more of its changelog than there is."""
    (path,) = Path(worker.folder).rglob(name)
    store = Store(path).open()
    assert store.get(BEGINNING_KEY) is not None
    store.apply([], store.offset + 1_000)
    store.close()


def killed_in_the_middle(stack: Stack) -> None:
    """A worker that is killed (kill -9) while it rebuilds the second partition, and has written a part of it."""
    worker = stack.worker(command=FAULTY_WORKER, CRASH_CHUNK="5", CRASH_PAUSE_S="0.05").start()

    def in_the_middle() -> bool:
        answer = worker.get("/readyz?verbose")
        assert answer.status == 503
        recovery = answer.json["recovery"]
        return recovery["rebuilding"] == "by_user[1]" and recovery["done"] >= 40

    eventually(in_the_middle, within=60)
    assert worker.get("/v1/users/user-6/purchases").status == 503, "a user of that partition"
    worker.kill()


@pytest.mark.slow_on("mariadb")
@pytest.mark.cost(30)
def test_purchases_that_orders_has_forgotten_come_back_from_mysql_by_themselves(stack: Stack):
    stack.create_orders()
    stack.setup()
    source = stack.source()
    worker = stack.worker(LATELY_SIMILAR="0").start().wait_ready()
    trade(stack, 0, 400)
    eventually(lambda: stack.assert_equal_to_sql(worker, USERS), within=60)
    worker.stop()
    source.stop()
    cut(stack, stack.topic("orders"), 0.5, "delete")
    delete_topic(stack, changelog(stack, "by_user"))
    stack.wipe(worker)

    worker = stack.worker(LATELY_SIMILAR="0").start().wait_ready(within=60)
    assert rebuilds(worker) == {("by_user", "emptied"): PARTITIONS, ("product_partials", "derived"): PARTITIONS}
    assert "run `lately source snapshot --all`" in worker.process.tail(400)
    answers = [worker.get(f"/v1/users/{user}/purchases?limit=100").json for user in USERS]
    shown = sum(len(answer["purchases"]) for answer in answers)
    assert 0 < shown < 399
    eventually(lambda: worker.get("/v1/users/user-1/purchases?limit=100").json["meta"]["complete"] is False, within=10)

    source = stack.source()
    trade(stack, 400, 40)
    eventually(lambda: stack.assert_equal_to_sql(worker, USERS), within=60)
    for user in USERS:
        assert worker.purchases(user, 100) == stack.truth(user, 100), user
    assert "all rows are published again" in source.tail(400)
    assert incomplete(worker) == {}
    # Once is enough: neither a partial snapshot nor a restart asks for it again.
    assert stack.lately("source", "snapshot", "--since", "1d").child.returncode == 0
    worker.stop()
    stack.wipe(worker)
    worker = stack.worker(LATELY_SIMILAR="0").start().wait_ready()
    assert rebuilds(worker) == {}
    eventually(lambda: stack.assert_equal_to_sql(worker, USERS), within=30)
