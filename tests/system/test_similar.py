"""Similar products: what SQL counts is what the worker says, and nobody is shown what he has."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kit.co_purchases import (
    PRODUCTS,
    USERS,
    also_bought,
    assert_co_purchases_equal_sql,
    place_random_orders,
    product_names,
    similar_products,
)
from tests.kit.eventually import eventually
from tests.kit.orders import buy
from tests.kit.stack import Stack, Worker


@pytest.fixture
def shop(stack: Stack) -> Stack:
    """A shop whose orders are captured."""
    stack.create_orders()
    stack.setup()
    stack.source()
    return stack


@pytest.fixture
def worker(shop: Stack) -> Worker:
    return shop.worker().start().wait_ready()


# -- one purchase after the other


def test_the_second_buyer_of_two_products_is_counted_within_two_seconds(shop: Stack, worker: Worker):
    buy(shop, ("ann", "Phone"), ("ann", "Case"), category="phones")
    eventually(lambda: also_bought(worker, "Phone") == {"Case": 1}, within=20)
    buy(shop, ("bob", "Phone"), ("bob", "Case"), category="phones")

    def seen() -> None:
        assert similar_products(worker, "Phone")[0] == {
            "product_name": "Case",
            "score": 1.0,
            "source": "co-purchase",
            "reason": {"type": "also_bought", "with": "Phone", "also_bought_by": 2},
        }

    eventually(seen, within=2)
    assert product_names(similar_products(worker, "Phone", for_user="bob")) == []


# -- many orders


@pytest.mark.cost(25)
@pytest.mark.parametrize("orders", [500, pytest.param(1_000, marks=pytest.mark.slow)])
def test_every_count_equals_sql_through_kills_and_an_empty_disk(shop: Stack, orders: int):
    worker = shop.worker().start().wait_ready()
    with ThreadPoolExecutor() as threads:
        trading = threads.submit(place_random_orders, shop, random.Random(7), orders)
        eventually(lambda: worker.events() > orders * 0.4, within=60)
        worker.kill()
        worker = shop.worker().start().wait_ready()
        eventually(lambda: worker.events() > orders * 0.4, within=60)
        worker.kill()
        shop.wipe(worker)
        worker = shop.worker().start().wait_ready()
        trading.result()
    eventually(shop.outbox_is_empty, within=60)
    eventually(lambda: assert_co_purchases_equal_sql(shop, worker), within=60)

    worker.kill()
    shop.wipe(worker)
    reborn = shop.worker().start().wait_ready()
    assert_co_purchases_equal_sql(shop, reborn)


@pytest.mark.cost(16)
def test_while_orders_wait_they_are_read_first_and_what_goes_together_is_counted_afterwards(shop: Stack):
    dice, count = random.Random(3), 30_000
    buy(shop, *((dice.choice(USERS), dice.choice(PRODUCTS)) for _ in range(count)))
    eventually(shop.outbox_is_empty, within=60)
    worker = shop.worker().start()
    lags: list[float] = []
    eventually(lambda: _assert_all_read(worker, count, lags), within=60)
    # If the agents took turns, the lag would always be next to nothing; its exact size depends on the machine.
    assert max(lags) > shop.high_watermark("purchase-changes") / 4
    eventually(lambda: assert_co_purchases_equal_sql(shop, worker), within=120)


def _assert_all_read(worker: Worker, orders: int, lags: list[float]) -> None:
    """Fails until all orders are read; appends the current lag of the agent that counts co-purchases."""
    lines = [line.rpartition(" ") for line in worker.get("/metrics").text.splitlines()]
    lags.append(sum(float(value) for name, _, value in lines
                    if name.startswith("lately_consumer_lag_records{") and "purchase-changes" in name))  # fmt: skip
    read = sum(float(value) for name, _, value in lines if name.startswith('lately_events_total{agent="by_user"'))
    assert read == orders


def test_a_worker_that_is_told_not_to_count_says_so(shop: Stack):
    worker = shop.worker(LATELY_SIMILAR="0").start().wait_ready()
    buy(shop, ("ann", "Phone"), ("ann", "Case"))
    eventually(lambda: len(worker.purchases("ann")) == 2, within=20)
    assert worker.get("/v1/products/Phone/similar").status == 404
    assert shop.high_watermark("purchase-changes") == 0
