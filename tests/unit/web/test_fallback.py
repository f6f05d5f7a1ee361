"""Who answers about a user when the owner of the partition does not, in which order, and how often MySQL is asked."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import Request, Response
from yarl import URL

from app.core import app, settings
from app.errors import ServerAway
from chunks import ClosedPartition
from domain.partitioning import partition_of
from source.user_rows import UserRows
from tables import by_user
from web import fallback, routing
from web.fallback import Breaker, Reads
from web.http.access import HOP_HEADER
from web.http.limits import Limiter
from web.http.problems import Problem

AWAY = routing.unserved("owner-away")
STALE = Problem(503, "too-stale", "too old")
ROWS = ["a purchase"]


class Clock:
    """A time that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def request(**headers: str) -> Request:
    return make_mocked_request("GET", "/v1/users/ann/purchases", headers=headers)


# --- the order ------------------------------------------------------------------------------------------------


def instead(monkeypatch, *, exact: bool, copy: object, rows: list | None, **headers: str) -> tuple[str, list[str]]:
    """What is answered about ann, and who was asked."""
    asked = []

    async def is_exact(table: object, partition: int, within_s: float) -> bool:
        assert (table, partition, within_s) == (by_user.by_user, 3, settings.forward_ms / 1000)
        return exact

    async def ask(read: object) -> dict | None:
        asked.append("source")
        return None if rows is None else UserRows(1, {"ann": rows})

    def from_copy() -> str:
        asked.append("copy")
        if isinstance(copy, Exception):
            raise copy
        return copy

    monkeypatch.setattr(app.tables.standby, "is_caught_up", is_exact)
    monkeypatch.setattr(fallback.reads, "ask", ask)
    try:
        said = asyncio.run(
            fallback.instead(request(**headers), AWAY, "ann", 3, from_copy, lambda read: read.purchases["ann"][0])
        )
    except Problem as problem:
        said = problem.code
    return said, asked


@pytest.mark.parametrize(
    ("exact", "copy", "rows", "said", "asked"),
    [
        (True, "a copy", ROWS, "a copy", ["copy"]),
        (False, "a copy", ROWS, "a purchase", ["source"]),
        (True, ClosedPartition(), ROWS, "a purchase", ["copy", "source"]),
        (True, STALE, ROWS, "a purchase", ["copy", "source"]),
        (True, STALE, None, "too-stale", ["copy", "source"]),
        (False, "a copy", None, "owner-away", ["source"]),
    ],
)
def test_an_exact_copy_comes_before_the_source_and_the_source_before_an_error(
    monkeypatch, exact, copy, rows, said, asked
):
    assert instead(monkeypatch, exact=exact, copy=copy, rows=rows) == (said, asked)


def test_a_request_that_was_forwarded_may_be_answered_from_a_copy_but_the_source_is_asked_by_the_first_worker(
    monkeypatch,
):
    hop = {HOP_HEADER: "1"}
    assert instead(monkeypatch, exact=True, copy="a copy", rows=ROWS, **hop) == ("a copy", ["copy"])
    assert instead(monkeypatch, exact=False, copy="a copy", rows=ROWS, **hop) == ("owner-away", [])


# --- MySQL ----------------------------------------------------------------------------------------------------


def test_a_breaker_stays_away_from_what_failed_often_enough_and_lets_one_try_again():
    clock = Clock()
    breaker = Breaker(2, 10, clock)
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.allows(), "two in a row are meant"
    breaker.failed()
    assert not breaker.allows()
    clock.now += 10
    assert [breaker.allows(), breaker.allows()] == [True, False]
    breaker.failed()
    clock.now += 9.9
    assert not breaker.allows()
    clock.now += 0.1
    assert breaker.allows()
    breaker.succeeded()
    assert [breaker.allows(), breaker.allows()] == [True, True]


def fails() -> None:
    raise ServerAway("MySQL is away")


def reads(per_second: int = 0, failures: int = 3, within_s: float = 5.0, opened: int = 4) -> Reads:
    limiter = Limiter(per_second, clock=Clock()) if per_second else None
    return Reads(limiter, Breaker(failures, 10, Clock()), within_s, asyncio.Semaphore(opened))


def test_no_more_reads_than_the_rate_allows_and_none_at_rate_0():
    async def work(one: Reads) -> list:
        return [await one.ask(lambda: "read") for _ in range(4)]

    assert asyncio.run(work(reads(per_second=3))) == ["read", "read", "read", None]
    assert asyncio.run(work(reads())) == [None] * 4


def test_after_failures_in_a_row_nothing_is_read_any_more():
    tried = []

    def failing() -> None:
        tried.append(1)
        fails()

    async def work() -> None:
        one = reads(per_second=100)
        for _ in range(5):
            assert await one.ask(failing) is None

    asyncio.run(work())
    assert len(tried) == 3


def test_a_read_that_takes_too_long_is_a_failure_and_stays_open_until_it_ends():
    going_on = threading.Event()

    async def work() -> None:
        one = reads(per_second=100, within_s=0.01, failures=9, opened=1)
        assert await one.ask(going_on.wait) is None
        assert await one.ask(lambda: "read") is None, "no second one beside it"
        going_on.set()
        while one._opened.locked():
            await asyncio.sleep(0)
        assert await one.ask(lambda: "read") == "read"

    asyncio.run(work())


def test_a_read_that_was_asked_for_waits_for_its_turn_but_not_for_ever(monkeypatch: pytest.MonkeyPatch):
    going_on = threading.Event()

    async def work() -> None:
        monkeypatch.setattr(fallback, "_wanted", asyncio.Semaphore(1))
        monkeypatch.setattr(fallback, "settings", replace(settings, fallback_ms=10))
        first = asyncio.create_task(fallback.read(going_on.wait))
        while not fallback._wanted.locked():
            await asyncio.sleep(0)
        with pytest.raises(ServerAway, match="LATELY_SOURCE_READS"):
            await fallback.read(lambda: "read")
        # Who asks in place of a table does not wait for those.
        assert await reads(per_second=1).ask(lambda: "read") == "read"
        going_on.set()
        await first
        assert await fallback.read(lambda: "read") == "read"

    asyncio.run(work())


# --- the way to the owner -------------------------------------------------------------------------------------

USER = b"ann"
HERE, THERE = "here", "http://there:6066/"


@pytest.fixture
def owned(monkeypatch):
    """Set who owns ann's partition, and whether this worker is ready."""

    def set_(owner: str | None, is_ready: bool = True) -> None:
        topic, partition = by_user.by_user.changelog, partition_of(USER, settings.partitions)
        assignor = SimpleNamespace(
            is_active=lambda tp: owner == HERE and tp == (topic, partition),
            table_metadata=lambda _: {THERE: {topic: [partition]}} if owner == THERE else {},
        )
        monkeypatch.setattr(routing, "ready", lambda: is_ready)
        monkeypatch.setattr(app, "assignor", assignor)

    return set_


def routed(answer: object = "owner's", forward: object = None, **headers: str) -> str:
    """Who answers: this worker, the one it forwards to, or whoever is there instead, with the reason."""

    def here(partition: int) -> Response:
        if isinstance(answer, Exception):
            raise answer
        return Response(text="here")

    async def there(_: Request, owner: object) -> Response:
        assert str(owner) == THERE
        if isinstance(forward, Exception):
            raise forward
        return forward or Response(text="there")

    async def instead(problem: Problem, partition: int) -> Response:
        return Response(text=f"instead: {problem.code}")

    async def work() -> str:
        answered = routing.routed(request(**headers), by_user.by_user, USER, here, there, instead)
        return (answered if isinstance(answered, Response) else await answered).text

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("owner", "ready", "answer", "forward", "said"),
    [
        (HERE, True, None, None, "here"),
        (HERE, False, None, None, "instead: recovering"),
        (HERE, True, ClosedPartition(), None, "instead: recovering"),
        (THERE, True, None, None, "there"),
        (THERE, False, None, None, "there"),
        (THERE, True, None, AWAY, "instead: owner-away"),
        (THERE, True, None, Response(status=503, headers={routing.UNSERVED: "recovering"}), "instead: recovering"),
        (THERE, True, None, Response(status=508, headers={routing.UNSERVED: "routing-loop"}), "instead: owner-away"),
        (THERE, True, None, Response(status=503, text="too-stale"), "too-stale"),
        (None, True, None, None, "instead: owner-away"),
        (None, False, None, None, "instead: recovering"),
    ],
)
def test_the_owner_answers_and_only_where_it_cannot_somebody_else(owned, owner, ready, answer, forward, said):
    owned(owner, ready)
    assert routed(answer, forward) == said


def test_a_request_that_was_forwarded_is_not_forwarded_again(owned):
    hop = {HOP_HEADER: "1"}
    owned(THERE)
    with pytest.raises(Problem) as caught:
        routed(**hop)
    assert (caught.value.status, caught.value.code) == (508, "routing-loop")
    owned(THERE, is_ready=False)
    assert routed(**hop) == "instead: recovering"
    owned(HERE)
    assert routed(**hop) == "here"


def test_a_worker_that_was_frozen_ends_before_it_answers_with_what_is_no_longer_its_own(owned, monkeypatch):
    class Ended(Exception):
        pass

    def end() -> None:
        raise Ended

    owned(HERE)
    monkeypatch.setattr(app.freeze_guard, "check", end)
    with pytest.raises(Ended):
        routed()


def test_what_is_wrong_with_a_request_is_said_by_the_owner_and_nobody_else(owned):
    owned(HERE)
    with pytest.raises(Problem) as caught:
        routed(STALE)
    assert caught.value is STALE


def test_a_worker_that_stops_while_it_forwards_says_that_the_owner_is_away(monkeypatch: pytest.MonkeyPatch):
    async def forward() -> None:
        session = aiohttp.ClientSession()
        monkeypatch.setattr(app, "_http_client", session)
        await session.close()
        asked = request()
        asked._state["request_id"] = "1"
        await routing.forwarded(asked, URL("http://127.0.0.1:9"))

    with pytest.raises(Problem) as raised:
        asyncio.run(forward())
    assert (raised.value.status, raised.value.code) == (503, "owner-away")
