"""The main job: what SQL says of every user and product is what the worker says, whatever happened to it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta

import pytest

from tests.kit.eventually import eventually
from tests.kit.orders import MANY_USERS, UNREADABLE_RECORDS, change_or_remove
from tests.kit.stack import Stack

pytestmark = pytest.mark.partitions(4)

PRODUCTS = [f"Phone {number}" for number in range(15)] + [f"Computer {number}" for number in range(14)] + ["A/C <b>&"]
START = datetime(2026, 1, 1)


def trade(stack: Stack, dice: random.Random, orders: int) -> int:
    """Orders with changes, removals, rollbacks and moves between; returns the number of unreadable records."""
    unreadable = 0
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        placed = []
        for number in range(orders):
            # Few distinct moments, so that ties have to be broken by order id and product name.
            at = START + timedelta(minutes=dice.randrange(20_000))
            for product in dice.sample(PRODUCTS, dice.choice([1, 1, 1, 2, 3])):
                line = (f"o{number:05}", product)
                cursor.execute(
                    "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at, payment_method)"
                    " VALUES (%s, %s, %s, %s, %s, %s)",
                    (*line, dice.choice(MANY_USERS), f"{dice.randrange(1, 200_000) / 100:.2f}", at,
                     dice.choice(["card", "paypal", None])),
                )  # fmt: skip
                placed.append(line)
            if dice.random() < 0.05:
                connection.rollback()
                placed = [line for line in placed if line[0] != f"o{number:05}"]
                continue
            if dice.random() < 0.15:
                change_or_remove(cursor, dice, placed)
            connection.commit()
            if number % 500 == 250:
                stack.publish("orders", *UNREADABLE_RECORDS)
                unreadable += len(UNREADABLE_RECORDS)
    return unreadable


def repeat_everything(stack: Stack, dice: random.Random) -> None:
    """Deliver the whole topic a second time, in any order."""
    records = [(record.key(), record.value()) for record in stack.records("orders")]
    dice.shuffle(records)
    stack.publish("orders", *records)


@pytest.fixture
def dice() -> random.Random:
    return random.Random(20260101)


@pytest.mark.cost(30)
@pytest.mark.parametrize("orders", [1_500, pytest.param(5_000, marks=pytest.mark.slow)])
def test_every_answer_equals_sql_through_kills_repeats_and_an_empty_disk(
    stack: Stack, dice: random.Random, orders: int
):
    stack.create_orders()
    stack.setup()
    source = stack.source()
    worker = stack.worker().start().wait_ready()

    with ThreadPoolExecutor() as shop:
        trading = shop.submit(trade, stack, dice, orders)
        eventually(lambda: worker.events() > orders / 3, within=60)
        worker.process.kill()  # in the middle of the stream …
        worker = stack.worker().start().wait_ready()  # … and again on the same disk
        eventually(lambda: worker.events() > orders / 3, within=60)
        worker.process.kill()
        stack.wipe(worker)
        worker = stack.worker().start().wait_ready()  # the second time on an empty one
        unreadable = trading.result()
    eventually(stack.outbox_is_empty, within=60)
    eventually(lambda: stack.assert_equal_to_sql(worker, MANY_USERS), within=120)

    repeat_everything(stack, dice)
    total = len(stack.records("orders"))
    eventually(lambda: lag_is_zero(stack, total), within=120)
    eventually(lambda: stack.assert_equal_to_sql(worker, MANY_USERS), within=30)
    assert dead_origins(stack) == sorted(
        (record.topic(), record.partition(), record.offset())
        for record in stack.records("orders")
        if (record.key(), record.value()) in UNREADABLE_RECORDS
    )
    assert len(dead_origins(stack)) == 2 * unreadable, "each was delivered twice"

    source.stop()
    worker.process.kill()
    stack.wipe(worker)
    reborn = stack.worker().start().wait_ready()
    stack.assert_equal_to_sql(reborn, MANY_USERS)
    assert reborn.events() == 0, "the tables came from their changelogs, no order was read again"


def dead_origins(stack: Stack) -> list[tuple[str, int, int]]:
    """Where the dead letters came from, in order."""
    origins = []
    for record in stack.records("orders-dead"):
        headers = {name.removeprefix("__lately.errors."): text.decode() for name, text in record.headers()}
        assert headers["exception"] in {"malformed-json", "wrong-type", "unknown-type", "unknown-schema"}
        origins.append((headers["topic"], int(headers["partition"]), int(headers["offset"])))
    return sorted(origins)


def lag_is_zero(stack: Stack, total: int) -> None:
    """The group has committed all records of the topic."""
    assert stack.committed("orders") == total
