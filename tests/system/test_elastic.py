"""Workers come, go, die and are restarted one by one while orders flow and people look; nothing is wrong or lost."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import cycle

import pytest

from chunks.assignment import WARM_RECORDS
from chunks.restore import NEAR_RECORDS
from tests.kit.background import beside
from tests.kit.co_purchases import USERS, assert_all_equal_to_sql, trading
from tests.kit.eventually import eventually
from tests.kit.makers import event, wire
from tests.kit.orders import NOW, buy
from tests.kit.stack import Stack, Worker

pytestmark = pytest.mark.partitions(4)

#: Somebody who bought long ago, and nothing since.
REGULAR = "regular"


@contextmanager
def looking(workers: list[Worker], bought: list[tuple]) -> Iterator[Counter]:
    """Somebody asks all workers in turn, fifty times a second; how often each status was answered, 0: nobody was there.

    Whoever answers shows everything that was bought.
    """
    said: Counter = Counter()

    def look(ended: threading.Event) -> None:
        for worker in cycle(workers):
            if ended.wait(0.02):
                return
            try:
                answer = worker.get(f"/v1/users/{REGULAR}/purchases")
            except (OSError, http.client.HTTPException):
                said[0] += 1
                continue
            said[answer.status] += 1
            if answer.status == 200:
                assert [one["order_id"] for one in answer.json["purchases"]] == [order for order, *_ in bought]
            else:
                assert (answer.status, "Retry-After" in answer.headers) == (503, True), answer

    with beside(look):
        yield said


def seconds_until_visible(stack: Stack, worker: Worker, minute: int) -> float:
    """Everybody buys something new now; how long it takes until a worker shows all of it, whoever owns it."""
    at, began = NOW + timedelta(minutes=minute), time.monotonic()
    buy(stack, *((user, "Never cancelled") for user in USERS), at=at)
    left = set(USERS)

    def shown() -> bool:
        for user in sorted(left):
            newest = worker.purchases(user)[:1]
            if newest and newest[0][3] == f"{at.isoformat()}Z":
                left.discard(user)
        return not left

    eventually(shown, within=60)
    return time.monotonic() - began


@pytest.mark.cost(35)
def test_one_worker_becomes_three_then_two_and_each_is_restarted_while_orders_flow(stack: Stack):
    stack.create_orders()
    stack.setup()
    stack.source()
    first = stack.worker("first").start().wait_ready()
    buy(stack, *[(REGULAR, "Phone 1")] * 30)
    bought = stack.truth(REGULAR)
    eventually(lambda: first.purchases(REGULAR) == bought, within=30)
    others = [stack.worker(name) for name in ("second", "third")]
    second, third = others
    with trading(stack, at_once=5), looking([first, *others], bought) as said:
        for worker in others:
            worker.start()
        for worker in others:
            worker.wait_ready()
        calm = seconds_until_visible(stack, first, 1)
        second.kill()
        dead = seconds_until_visible(stack, first, 2)
        for worker in (first, third):
            worker.stop()
            worker.start().wait_ready()
        restarted = seconds_until_visible(stack, first, 3)
    for worker in (first, third):
        eventually(lambda worker=worker: assert_all_equal_to_sql(stack, worker), within=30)
    assert said[200] > 100
    print(  # noqa: T201 - a measurement, which depends on the machine
        f"new orders of all users were visible {calm:.1f} s after their commit with three workers, {dead:.1f} s after "
        f"one was killed, {restarted:.1f} s after a restart of each; answers by status: {dict(said)}"
    )


def placed(user: str, order: str) -> tuple[bytes, bytes]:
    """The event of somebody's order."""
    return wire(event(user_id=user, order_id=order))


def active(worker: Worker) -> list[int]:
    """The partitions of purchases that a worker owns."""
    return worker.get("/readyz?verbose").json["partitions"]["by_user"]["active"]


def rebalances(worker: Worker) -> float:
    """How often partitions were given out anew to a worker."""
    (line,) = [one for one in worker.get("/metrics").text.splitlines() if one.startswith("lately_rebalances_total ")]
    return float(line.split()[1])


@pytest.mark.cost(16)
def test_a_worker_that_joins_reads_the_tables_beside_the_owner_and_takes_over_when_it_has_them(stack: Stack):
    stack.env |= {"LATELY_PARTITIONS": "2", "LATELY_SIMILAR": "0", "LATELY_BY_PRODUCT": "0"}
    first, second = stack.worker("first").start().wait_ready(), stack.worker("second")
    users = 2 * WARM_RECORDS + 20_000
    for begin in range(0, users, 40_000):  # more do not fit a producer's queue
        stack.publish("orders", *(placed(f"u{n}", f"o-{n}") for n in range(begin, begin + 40_000)))
    eventually(lambda: first.events() == users, within=60)
    second.start().wait_ready()
    eventually(lambda: len(active(first)) == len(active(second)) == 1, within=60)
    second.wait_ready()
    log = second.process.log.read_text()
    begun, asked = log.find("restored 0 records"), log.find("copies are warm: asking to take over")
    assert 0 <= begun < asked, log
    restored = [int(found) for found in re.findall(r"restored (\d+) records in", log[asked:])]
    assert restored, log
    assert max(restored) <= NEAR_RECORDS, "it had to read more than it said it lacked"
    for worker in (first, second):
        for n in range(0, users, 5_000):
            assert [one[0] for one in worker.purchases(f"u{n}")] == [f"o-{n}"]


@pytest.mark.cost(16)
def test_a_worker_with_a_name_of_its_own_comes_back_to_its_partitions_and_stops_no_other(stack: Stack):
    stack.env["LATELY_SESSION_TIMEOUT_S"] = "20"
    first = stack.worker("first", LATELY_INSTANCE_ID="one").start().wait_ready()
    second = stack.worker("second", LATELY_INSTANCE_ID="two").start().wait_ready()
    eventually(lambda: len(active(first)) == len(active(second)) == 2, within=30)
    had, before = active(first), rebalances(second)
    stack.publish("orders", *(placed(user, f"{user}-1") for user in USERS))
    first.kill()
    stack.publish("orders", *(placed(user, f"{user}-2") for user in USERS))
    first.start().wait_ready()
    for user in USERS:
        eventually(lambda user=user: {one[0] for one in first.purchases(user)} == {f"{user}-1", f"{user}-2"})
    first.stop()
    first.start().wait_ready()
    assert (active(first), rebalances(second)) == (had, before)
