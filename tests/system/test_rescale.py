"""`lately rescale`: orders flow while the topics get more partitions; nothing is missing, and nothing counts twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from datetime import timedelta

import pytest
from aiokafka import TopicPartition
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from app.control import state_topic
from app.control.source_state import TopicLayout
from app.kafka.admin import ensure_topics
from app.kafka.consume import open_consumer, read_until
from app.settings import Settings
from app.topics import Topics
from commands.rescale.next_generation import write_states
from domain import purchases as folds
from domain.partitioning import partition_of
from tests.kit.co_purchases import PRODUCTS, also_bought, assert_all_equal_to_sql, trading
from tests.kit.commands import prove_erasure, start_lately
from tests.kit.eventually import eventually
from tests.kit.orders import NOW, UNREADABLE_RECORDS, buy, count_published
from tests.kit.stack import Stack, Worker

pytestmark = pytest.mark.partitions(4)

#: So many rows that copying them takes some transactions.
ROWS = 8_000
NEW = {"LATELY_GENERATION": "2", "LATELY_PARTITIONS": "6"}


def fill(stack: Stack) -> None:
    """Many orders of before."""
    dice = random.Random(3)
    rows = [
        (
            f"old-{number}",
            dice.choice(PRODUCTS),
            f"early-{number % 900}",
            "2.50",
            NOW - timedelta(minutes=number),
            "card",
        )
        for number in range(ROWS)
    ]
    stack.insert(*rows)


def rescale(stack: Stack, *words: str, code: int = 0, **env: str) -> list[dict]:
    """What `lately rescale … --json` says."""
    process = stack.lately("rescale", *words, "--json", **env)
    assert process.child.returncode == code, process.tail()
    return [json.loads(line) for line in process.tail(1_000).splitlines() if line.startswith("{")]


def failed(stack: Stack, *words: str, code: int = 75) -> str:
    """What a command says when it ends with this code."""
    process = stack.lately(*words)
    assert process.child.returncode == code, process.tail()
    return process.tail()


def refused(stack: Stack, *words: str, **env: str) -> str:
    """What a command says when it ends with 2."""
    process = stack.lately(*words, **env)
    assert process.child.returncode == 2, process.tail()
    return process.tail()


def committed(stack: Stack, topic: str, partitions: int) -> list[tuple[int, bytes | None, bytes | None]]:
    """Partition, key and value of all records of a topic that are committed."""

    async def read() -> list:
        async with open_consumer(Settings.from_env(stack.env)) as consumer:
            tps = [TopicPartition(topic, number) for number in range(partitions)]
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            return [(one.partition, one.key, one.value) async for one in read_until(consumer, ends)]

    return asyncio.run(read())


def by_key(records: list[tuple]) -> dict[bytes, list[bytes]]:
    """Key -> its values in their order."""
    found = defaultdict(list)
    for _, key, value in records:
        found[key].append(value)
    return found


def assert_pairs_equal_sql(stack: Stack, worker: Worker) -> None:
    """Every pair of products is what SQL counts."""
    pairs = defaultdict(dict)
    for name, other, users in stack.select(
        "SELECT a.product_name, b.product_name, COUNT(DISTINCT user_id) FROM orders a JOIN orders b USING (user_id)"
        " WHERE a.product_name <> b.product_name GROUP BY 1, 2"
    ):
        pairs[name][other] = users
    for name in PRODUCTS:
        assert also_bought(worker, name) == pairs[name], name


def letters(stack: Stack, **env: str) -> list[dict]:
    """The open dead letters."""
    return [json.loads(line) for line in stack.lately("dlq", "list", "--json", **env).tail(100).splitlines()]


def as_they_were(found: list[dict]) -> list[list[str]]:
    """Dead letters without where they lie."""
    return sorted([one[name] or "" for name in ("key", "value", "reason", "failed_at")] for one in found)


def whole(stack: Stack, changelog: str, key: bytes, purchases: int) -> bytes:
    """The value of a user in a changelog, once it has so many purchases."""
    value = by_key(committed(stack, changelog, 6))[key][-1:] or [None]
    assert len(folds.decode_recent(value[0]).purchases) == purchases
    return value[0]


def write(stack: Stack, topic: str, partition: int, key: bytes, value: bytes | None) -> None:
    """A record that no worker has written."""
    producer = Producer({"bootstrap.servers": stack.servers.kafka})
    producer.produce(topic, value, key, partition=partition)
    assert producer.flush(20) == 0


def topics(stack: Stack) -> set[str]:
    """All topics of this stack, without its name."""
    names = AdminClient({"bootstrap.servers": stack.servers.kafka}).list_topics(timeout=10).topics
    return {name.removeprefix(f"{stack.name}-") for name in names if name.startswith(stack.name)}


def settings(stack: Stack, **env: str) -> Settings:
    return Settings.from_env({**stack.env, **env})


@pytest.mark.slow
@pytest.mark.cost(100)
def test_four_partitions_become_six_while_orders_flow_and_nothing_is_lost_or_doubled(stack: Stack):
    stack.create_orders()
    fill(stack)
    stack.setup(since=None)
    old_sources = [stack.source(), stack.source()]
    old = stack.worker("old").start().wait_ready()
    stack.publish("orders", *UNREADABLE_RECORDS)
    eventually(lambda: len(committed(stack, stack.topic("orders-dead"), 4)) == len(UNREADABLE_RECORDS), within=30)
    stack.lately("dlq", "drop", "--reason", "unknown-schema")
    left = letters(stack)
    assert 0 < len(left) < len(UNREADABLE_RECORDS)
    (plan,) = rescale(stack, "--partitions", "6", "--dry-run")
    assert (plan["generation"], plan["partitions"], plan["records"] >= ROWS) == (2, 6, True)

    with trading(stack):
        # Killed in the middle of the copy, it goes on without a repeat.
        copying = start_lately(stack, "rescale", "--partitions", "6")
        eventually(lambda: count_published(stack, "g2-orders") > 0, within=30)
        copying.kill()
        assert rescale(stack, "--partitions", "6", "--within", "1", code=75) == []
        new_source = stack.source(**NEW)
        new = stack.worker("new", **NEW).start().wait_ready()

        # Tables that differ are not switched to: the new changelog forgets a user. Nobody else is suspected.
        changelog, home = f"{stack.name}-g2-by_user-changelog", partition_of(b"early-7", 6)
        bought = stack.truth("early-7", 100)
        value = eventually(lambda: whole(stack, changelog, b"early-7", len(bought)), within=30)
        write(stack, changelog, home, b"early-7", None)
        *found, said = rescale(stack, "--partitions", "6", code=3)
        assert [(one["kind"], one["user_id"]) for one in found] == [("missing", "early-7")] * len(bought)
        assert {one["order_id"] for one in found} == {order for order, *_ in bought}
        assert (said["switched"], said["differences"]) == (False, len(bought))
        assert "still being filled" in new_source.tail(50)

        write(stack, changelog, home, b"early-7", value)
        (said,) = rescale(stack, "--partitions", "6")
        assert (said["switched"], said["differences"], said["users"] > 900) == (True, 0, True)
        eventually(lambda: not any(one.is_running for one in old_sources), within=30)
        assert all("generation 2 of the topics has replaced generation 1" in one.tail() for one in old_sources)
    stack.execute("DELETE FROM orders WHERE user_id = 'early-8'")
    eventually(stack.outbox_is_empty, within=30)
    eventually(lambda: assert_all_equal_to_sql(stack, new), within=30)
    eventually(lambda: assert_pairs_equal_sql(stack, new), within=30)
    assert "this worker receives no new orders" in old.process.tail(50)

    # The log is the same, each event once, those of a key in their order.
    before, after = committed(stack, stack.topic("orders"), 4), committed(stack, stack.topic("g2-orders"), 6)
    unreadable = {value for _, value in UNREADABLE_RECORDS}
    was = by_key([one for one in before if one[2] not in unreadable])
    now = by_key(after)
    assert {key: now[key][: len(values)] for key, values in was.items()} == was
    ids = [json.loads(value)["id"] for _, _, value in after]
    assert len(ids) == len(set(ids)) > len(before) - 2 * len(UNREADABLE_RECORDS)
    assert all(partition == partition_of(key, 6) for partition, key, _ in after)
    brought = letters(stack, **NEW)
    assert as_they_were(brought) == as_they_were(left)
    assert {(one["topic"], one["offset"]) for one in brought} == {(stack.topic("g2-orders"), "")}

    # The old ones are kept until they are of no use to anybody; a user who is erased is still in them.
    assert "were not compared with MySQL since" in refused(stack, "rescale", "--cleanup", **NEW)
    stack.env |= NEW
    code, places = prove_erasure(stack, new, "early-8")
    left = {name for name, one in places.items() if one["left"]}
    assert (code, left) == (3, {"topic by_user-changelog", "topic baskets-changelog"})
    assert places["topic orders"]["found"] > 1 < places["topic g2-orders"]["found"]
    verified = stack.lately("verify", "--worker", f"http://127.0.0.1:{new.port}")
    assert verified.child.returncode == 0, verified.tail()
    assert "still reads" in refused(stack, "rescale", "--cleanup")
    old.stop()
    eventually(lambda: rescale(stack, "--cleanup"), within=30)
    names = [topic.name for topic in Topics(settings(stack)).all]
    assert topics(stack) == {name.removeprefix(f"{stack.name}-") for name in names} | {"source-state"}
    assert prove_erasure(stack, new, "early-8", "--dry-run")[0] == 0
    buy(stack, ("ann", "Phone 2"))
    eventually(lambda: assert_all_equal_to_sql(stack, new), within=30)


@pytest.mark.group("watermark")  # a transaction of another test would hold up the watermark
def read_watermark(stack: Stack) -> int:
    """The watermark that the source of the first generation has written."""
    return asyncio.run(state_topic.read(settings(stack))).watermark.low


def test_a_rescale_that_was_killed_is_finished_and_one_that_was_given_up_leaves_nothing(watermark_stack: Stack):
    stack = watermark_stack
    assert "nothing to rescale, these topics do not exist" in refused(stack, "rescale", "--partitions", "6")
    stack.create_numbered_orders()
    stack.setup()
    source = stack.source()
    stack.insert(*[(f"o-{number}", "Phone", f"user-{number % 9}", "2.50", NOW, "card") for number in range(90)])
    eventually(lambda: stack.high_watermark("orders") == 90)

    # As if killed when the topics were made and nothing was written down yet.
    asyncio.run(ensure_topics(settings(stack, **NEW)))
    assert "`lately rescale --abandon` deletes it" in refused(stack, "rescale", "--partitions", "8")
    (given_up,) = rescale(stack, "--abandon")
    assert given_up["generation"] == 2
    assert not {name for name in topics(stack) if "g2-" in name}

    # As if killed in the middle of --abandon: the half that is left is not gone on with.
    rescale(stack, "--partitions", "3", "--within", "1", code=75)
    assert "a rescale to 3 partitions was begun" in refused(stack, "rescale", "--partitions", "8")
    three = settings(stack, LATELY_GENERATION="2", LATELY_PARTITIONS="3")
    asyncio.run(write_states(three, TopicLayout(partitions=3, predecessor=(1, 4), is_abandoned=True)))
    assert "is abandoned" in refused(stack, "rescale", "--partitions", "3")
    rescale(stack, "--abandon")
    assert not {name for name in topics(stack) if "g2-" in name}

    # As if killed just after it was written down that the old generation is a former one, with a source that leads.
    rescale(stack, "--partitions", "6", "--within", "1", code=75)
    asyncio.run(write_states(settings(stack), TopicLayout(partitions=4, active_since=0, successor=(2, 6))))
    stack.insert(*[(f"late-{number}", "Phone", f"user-{number}", "2.50", NOW, "card") for number in range(9)])
    stack.publish("orders", UNREADABLE_RECORDS[0])
    eventually(lambda: stack.high_watermark("orders") == 100)
    # What lies above the watermark at the handover is published again.
    eventually(lambda: read_watermark(stack) == stack.select("SELECT MAX(id) FROM orders")[0][0], within=30)
    assert "has replaced" in refused(stack, "source")
    (said,) = rescale(stack, "--partitions", "6")
    assert (said["switched"], said["events"]) == (True, 100)
    (again,) = rescale(stack, "--partitions", "6")
    assert (again["switched"], again["already"]) == (True, True)
    eventually(lambda: not source.is_running, within=30)
    assert "set LATELY_GENERATION=2 and LATELY_PARTITIONS=6" in source.tail()
    assert "first run `lately rescale --cleanup`" in refused(stack, "rescale", "--partitions", "8", **NEW)

    # The new source begins where the old one was: nothing is published again but what the watermark always repeats.
    stack.insert(("last", "Phone", "ann", "2.50", NOW, "card"))
    stack.source(**NEW)

    def seen() -> None:
        values = [value for _, _, value in committed(stack, stack.topic("g2-orders"), 6)]
        assert values.count(UNREADABLE_RECORDS[0][1]) == 1
        events = [json.loads(value)["data"] for value in values if value != UNREADABLE_RECORDS[0][1]]
        bought = [(one["order_id"], one["user_id"]) for one in events]
        assert sorted(bought) == sorted(stack.select("SELECT order_id, user_id FROM orders"))
        assert len(bought) == 100

    eventually(seen, within=30)


@pytest.mark.cost(30)
@pytest.mark.partitions(4)
def test_topics_that_were_altered_are_refused_and_a_rescale_moves_everything(stack: Stack):
    stack.create_orders()
    stack.insert(*[(f"o-{number}", "Phone", f"user-{number}", "2.50", NOW, "card") for number in range(40)])
    stack.setup()
    source, old = stack.source(), stack.worker("old").start().wait_ready()
    eventually(lambda: assert_all_equal_to_sql(stack, old), within=30)
    old.stop()
    source.stop()
    names = [topic.name for topic in Topics(settings(stack)).all if topic.partitions is None]
    admin = AdminClient({"bootstrap.servers": stack.servers.kafka})
    for future in admin.create_partitions([NewPartitions(name, 8) for name in names]).values():
        future.result()

    # Half of the users would be looked for in other partitions.
    altered = {"LATELY_PARTITIONS": "8"}
    for words in (("source",), ("worker",), ("source", "setup"), ("source", "snapshot")):
        assert "made with 4: set LATELY_PARTITIONS=4; `lately rescale --partitions 8`" in refused(
            stack, *words, **altered
        )
    assert "`lately rescale --partitions 8` moves everything to new topics" in refused(stack, "worker")

    moved = {"LATELY_GENERATION": "2", "LATELY_PARTITIONS": "8"}
    rescale(stack, "--partitions", "8", "--within", "1", code=75)
    stack.source(**moved)
    new = stack.worker("new", **moved).start().wait_ready()
    assert "no worker of generation 1 runs" in failed(stack, "rescale", "--partitions", "8")
    *_, said = rescale(stack, "--partitions", "8", "--anyway")
    assert (said["switched"], said["events"]) == (True, 40)
    buy(stack, ("user-7", "Case"))
    eventually(lambda: assert_all_equal_to_sql(stack, new), within=30)
