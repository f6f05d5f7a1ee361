"""Any worker answers for any user, whatever happens to the one that owns the user's partition."""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from domain.partitioning import partition_of
from tests.kit.eventually import eventually
from tests.kit.stack import Stack, Worker
from tests.kit.streams import open_stream

NOW = datetime(2026, 1, 31, 12)
PARTITIONS = 2
USERS = [f"user-{number}" for number in range(12)]
ORDERS = itertools.count()


def of(partition: int) -> list[str]:
    return [user for user in USERS if partition_of(user.encode(), PARTITIONS) == partition]


def order(user: str) -> tuple:
    number = next(ORDERS)
    return (f"o{number:05}", "Phone", user, "1.00", NOW + timedelta(seconds=number), "card")


def path(user: str, query: str = "limit=100") -> str:
    return f"/v1/users/{user}/purchases?{query}"


def many(users: list[str]) -> str:
    return "/v1/purchases?" + "&".join(f"user_id={user}" for user in users)


def parts(worker: Worker, kind: str) -> list[int]:
    return worker.get("/readyz?verbose").json["partitions"]["by_user"][kind]


@dataclass
class Asked:
    """One answer: when it was asked for and came, of whom, and which orders were missing that a table had shown."""

    worker: Worker
    user: str
    began: float
    ended: float
    status: int
    code: str | None
    role: str | None
    retry: str | None
    missing: set[str]


@dataclass
class Shop:
    """Buys for all users, and asks some workers for all users, without a pause."""

    stack: Stack
    answers: list[Asked] = field(default_factory=list)
    visible: dict[str, set[str]] = field(default_factory=lambda: {user: set() for user in USERS})

    @contextmanager
    def busy(self, *asked: Worker) -> Iterator[None]:
        over = threading.Event()
        failures: list[BaseException] = []

        def run(work: Callable[[str], None], pause_s: float) -> None:
            try:
                for user in itertools.cycle(USERS):
                    if over.wait(pause_s):
                        return
                    work(user)
            except BaseException as exc:
                failures.append(exc)

        jobs: list[tuple[Callable[[str], None], float]] = [(lambda user: self.stack.insert(order(user)), 0.04)]
        jobs += [(lambda user, worker=worker: self.ask(worker, user), 0.01) for worker in asked]
        threads = [threading.Thread(target=run, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert not failures, failures

    def ask(self, worker: Worker, user: str) -> None:
        before, began = set(self.visible[user]), time.monotonic()
        try:
            answer = worker.get(path(user))
        except (OSError, http.client.HTTPException):
            if any(one.worker is worker for one in self.answers):
                raise
            return  # it does not listen yet
        body, missing, role = answer.json, set(), None
        if answer.status == 200:
            ids = {one["order_id"] for one in body["purchases"]}
            missing, role = before - ids, body["meta"]["role"]
            # MySQL has what the tables have yet to read.
            if role != "source":
                self.visible[user] |= ids
        self.answers.append(
            Asked(worker, user, began, time.monotonic(), answer.status, body.get("code"), role,
                  answer.headers.get("Retry-After"), missing)
        )  # fmt: skip

    def since(self, began: float, worker: Worker) -> list[Asked]:
        return [one for one in self.answers if one.worker is worker and one.began >= began]


def longest_failure(answers: list[Asked]) -> float:
    """For how long in a row any user got anything but 200, in seconds."""
    longest, since = 0.0, {}
    for one in answers:
        if one.status == 200:
            since.pop(one.user, None)
        else:
            longest = max(longest, one.ended - since.setdefault(one.user, one.began))
    return longest


@pytest.mark.cost(28)
def test_any_worker_answers_for_any_user_whatever_happens_to_the_owner(stack: Stack):
    stack.env |= {"LATELY_PARTITIONS": str(PARTITIONS), "LATELY_STANDBY_REPLICAS": "1", "LATELY_SIMILAR": "0"}
    stack.create_orders()
    stack.setup()
    stack.source()
    workers = [stack.worker(f"worker-{number}").start() for number in range(3)]
    stack.insert(*(order(user) for user in USERS for _ in range(3)))
    for worker in workers:
        worker.wait_ready()
    shop = Shop(stack)

    def shared() -> None:
        assert sorted(one for worker in workers for one in parts(worker, "active")) == [0, 1]
        assert sorted(one for worker in workers for one in parts(worker, "standby")) == [0, 1]

    eventually(shared, within=30)

    # Every worker gives the same answer; one that owns nothing forwards everything, but nothing twice.
    for user in USERS:
        said = [eventually_equal(stack, worker, user) for worker in workers]
        assert len({meta["worker"] for meta in said}) == 1
    idle = next(worker for worker in workers if not parts(worker, "active"))
    page = idle.get(path(USERS[0], "limit=2"))
    assert idle.get(page.headers["Link"][1:].partition(">")[0]).json["purchases"][0]["position"] == 3
    assert idle.get(path(USERS[0], "limit=2"), If_None_Match=page.headers["ETag"]).status == 304
    # However many streams go through it, and however long the ids of many users are.
    with ExitStack() as streams:
        for _ in range(101):
            streams.enter_context(open_stream(idle, USERS[0]))
        assert idle.get(path(USERS[0])).json["meta"]["role"] == "active"
    long = many([f"{number:02}" + ":" * 58 for number in range(100)])
    assert (idle.get(long).status, idle.get(long).json["meta"]["complete"]) == (200, True)
    twice = idle.get(path(USERS[0]), Lately_Hop="1")
    assert (twice.status, twice.json["code"]) == (508, "routing-loop")

    # The owner of a partition dies: who has a standby of it goes on, who has nothing says so.
    lost = next(one for one in range(PARTITIONS) if any(one in parts(worker, "standby") for worker in workers))
    owner = next(worker for worker in workers if lost in parts(worker, "active"))
    copy = next(worker for worker in workers if lost in parts(worker, "standby"))
    bare = next(worker for worker in workers if worker not in (owner, copy))
    with shop.busy(copy, bare):
        eventually(lambda: len(shop.answers) > 100)
        os.kill(owner.process.pid, signal.SIGSTOP)
        slow = len(shop.answers)
        eventually(lambda: {one.role for one in shop.answers[slow:]} == {"active", "standby", None})
        os.kill(owner.process.pid, signal.SIGCONT)
        eventually(lambda: shop.answers[-1].ended - max(one.ended for one in shop.answers if one.status != 200) > 0.5)
        killed = time.monotonic()
        owner.kill()
        told = bare.get(many(USERS))
        assert (told.status, told.json["meta"]["complete"]) == (200, False)
        wrong = {one["user_id"]: one["error"]["code"] for one in told.json["users"] if "error" in one}
        assert wrong == dict.fromkeys(of(lost), "owner-away")
        all_wrong = bare.get(many(of(lost)))
        assert (all_wrong.status, all_wrong.json["code"], all_wrong.headers["Retry-After"]) == (503, "owner-away", "1")
        whole = copy.get(many(USERS))
        assert {one["meta"]["role"] for one in whole.json["users"]} == {"active", "standby"}
        assert copy.get(path(of(lost)[0], "consistency=active")).json["code"] == "owner-away"
        for route in ("/v1/users/{}/home", "/users/{}"):
            assert copy.get(route.format(of(lost)[0])).status == 200
        eventually(lambda: shop.since(killed, bare)[-1].ended - killed > 5, within=30)
        eventually(lambda: {one.role for one in shop.since(time.monotonic() - 1, bare)} == {"active"}, within=30)
    assert not [one for one in shop.answers if one.missing]
    assert max(one.ended - one.began for one in shop.answers) < 2, "nobody waits for long"
    assert "standby" in {one.role for one in shop.since(killed, copy) if one.user in of(lost)}
    assert longest_failure(shop.since(killed, copy)) < 1
    refused = [one for one in shop.since(killed, bare) if one.status != 200]
    assert {(one.status, one.retry) for one in refused} == {(503, "1")}
    assert {one.code for one in refused} <= {"owner-away", "recovering"}

    # It comes back with an empty disk, and asks MySQL until it is part of the group.
    stack.wipe(owner)
    again = stack.worker(owner.folder.name, LATELY_FALLBACK_PER_S="500")
    came = time.monotonic()
    with shop.busy(again, copy, bare):
        again.start().wait_ready()
        eventually(lambda: {one.role for one in shop.since(time.monotonic() - 1, again)} == {"active"}, within=30)
    assert not [one for one in shop.answers if one.missing]
    assert "source" in {one.role for one in shop.since(came, again)}
    for worker in (again, copy, bare):
        assert longest_failure(shop.since(came, worker)) < 1
    for user in USERS:
        for worker in (again, copy, bare):
            eventually_equal(stack, worker, user)

    # Nobody is left but one that owns nothing, or half.
    copy.kill()
    bare.kill()
    whole = again.get(many(USERS))
    assert (whole.status, whole.json["meta"]["complete"]) == (200, True)
    assert {one["meta"]["role"] for one in whole.json["users"]} & {"source", "standby"}
    for one in whole.json["users"]:
        assert len(one["purchases"]) == min(20, len(stack.truth(one["user_id"], 100)))


def eventually_equal(stack: Stack, worker: Worker, user: str) -> dict:
    """Wait until a user's table says what SQL says, through any worker; what the answer says about itself."""

    def equal() -> dict:
        meta = worker.get(path(user)).json["meta"]
        assert (meta["role"], worker.purchases(user, 100)) == ("active", stack.truth(user, 100))
        return meta

    return eventually(equal, within=30)
