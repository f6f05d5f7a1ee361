"""Lists contain every order that was committed until the time that is proven for them.

The changelog of `similar` stands in for that of a table that every worker follows completely.
"""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import pytest

from app.kafka.consume import open_consumer, partitions_of
from app.services.list_freshness import ListFreshness
from app.services.source_status import SourceStatus
from app.settings import Settings
from app.topics import Topics
from domain.co_purchases import decode_sales
from tests.kit.background import beside
from tests.kit.eventually import eventually
from tests.kit.orders import NOW
from tests.kit.stack import Stack

pytestmark = pytest.mark.partitions(4)

T = TypeVar("T")

ALL_AGENTS, EACH_AGENT = ("",), ("by_user", "by_product,baskets", "similar")


class Copy:
    """The sales of all products, as a worker follows them, and the freshness of what is computed from them."""

    def __init__(self, settings: Settings, orders: Orders) -> None:
        topics = Topics(settings)
        self._settings, self._orders = settings, orders
        self._changelog = topics.changelog("similar")
        self._sales: dict[bytes, int] = {}
        self._applied: dict[int, int] = {}
        self.source_status = SourceStatus(settings, topics)
        self.freshness = ListFreshness(settings, topics, self.source_status, lambda: self._applied, self._changelog)
        #: What was proven although orders are missing: the time, the orders until then, the orders in the copy.
        self.refuted: list[tuple[int, int, int]] = []

    @property
    def buyers(self) -> int:
        return sum(self._sales.values())

    async def follow(self) -> None:
        tps = partitions_of(self._changelog, self._settings.partitions)
        async with open_consumer(self._settings) as consumer:
            consumer.assign(tps)
            while True:
                fetched = await consumer.getmany(timeout_ms=20)
                for record in (record for records in fetched.values() for record in records):
                    if record.key.startswith(b"p"):
                        self._sales[record.key] = decode_sales(record.value).buyers
                self._applied = {tp.partition: await consumer.position(tp) for tp in tps}
                self.check()

    def check(self) -> None:
        as_of = self.freshness.as_of()
        committed = 0 if as_of is None else self._orders.committed_until(as_of)
        if committed > self.buyers:
            self.refuted.append((as_of, committed, self.buyers))


class Orders:
    """A shop in which every order is that of another user, so that a product has as many buyers as orders."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        #: When each order was certainly committed, in microseconds since 1970.
        self.times: list[int] = []

    def place(self, stopping: threading.Event) -> None:
        """Place orders of many products, some 50 per second, until the event is set."""
        while not stopping.wait(0.02):
            number = len(self.times)
            self._stack.insert((f"o{number}", f"Phone {number % 7}", f"user-{number}", 1, NOW, "card"))
            self.times.append(time.time_ns() // 1000)

    def committed_until(self, as_of: int) -> int:
        return bisect_left(self.times, as_of)


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def call(self, function: Callable[[], T]) -> T:
        async def work() -> T:
            return function()

        return self.run(work())

    @contextmanager
    def entered(self) -> Iterator[Loop]:
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()


@contextmanager
def following(stack: Stack, orders: Orders) -> Iterator[tuple[Copy, Loop]]:
    """A copy that is followed beside the test."""

    async def start() -> tuple[Copy, asyncio.Task]:
        copy = Copy(Settings.from_env(stack.env), orders)
        await copy.source_status.start()
        await copy.freshness.start()
        return copy, asyncio.create_task(copy.follow())

    async def stop(copy: Copy, following: asyncio.Task) -> None:
        await copy.freshness.stop()
        await copy.source_status.stop()
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    with Loop().entered() as loop:
        copy, task = loop.run(start())
        try:
            yield copy, loop
        finally:
            loop.run(stop(copy, task))


@pytest.mark.cost(40)
@pytest.mark.parametrize(
    "agents",
    [pytest.param(ALL_AGENTS, id="one group"), pytest.param(EACH_AGENT, id="three groups", marks=pytest.mark.slow)],
)
def test_lists_contain_every_order_until_the_proven_time_which_follows_the_orders(stack: Stack, agents):
    stack.create_orders()
    stack.setup()
    stack.source()

    def start(name: str) -> object:
        return stack.worker(f"worker {name}", **({"LATELY_AGENTS": name} if name else {})).start()

    workers = {name: start(name) for name in agents}
    for worker in workers.values():
        worker.wait_ready()
    orders = Orders(stack)
    with following(stack, orders) as (copy, loop):

        def follows(since: int) -> None:
            assert orders.times, "no order yet"
            as_of = loop.call(copy.freshness.as_of)
            assert as_of is not None
            assert as_of > since, f"{(since - as_of) / 1e6} s before"

        def proves_all() -> None:
            assert loop.call(copy.freshness.as_of) > orders.times[-1]
            assert copy.buyers == len(orders.times)

        with beside(orders.place):
            for _ in range(4):
                since = time.time_ns() // 1000
                eventually(lambda since=since: follows(since), within=30)
            # The agent in the middle of the flow is killed.
            middle = agents[len(agents) // 2]
            workers[middle].kill()
            workers[middle] = start(middle).wait_ready()
            since = time.time_ns() // 1000
            eventually(lambda: follows(since), within=60)
        eventually(proves_all, within=30)
        assert copy.refuted == []
        fresh = loop.call(copy.freshness.freshness)
        assert fresh.lag_ms is not None
        assert fresh.guarantee == "proven"
