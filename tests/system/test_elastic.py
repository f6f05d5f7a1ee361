"""Workers come, go, die and are restarted one by one while orders flow and people look; nothing is wrong or lost."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import cycle

from tests.beside import beside
from tests.eventually import eventually
from tests.stack import Stack, Worker
from tests.system.test_rescale import assert_equal_to_sql, trading
from tests.system.test_similar import NOW, USERS, buy

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
        eventually(lambda worker=worker: assert_equal_to_sql(stack, worker), within=30)
    assert said[200] > 200
    print(  # noqa: T201 - a measurement, which depends on the machine
        f"new orders of all users were visible {calm:.1f} s after their commit with three workers, {dead:.1f} s after "
        f"one was killed, {restarted:.1f} s after a restart of each; answers by status: {dict(said)}"
    )
