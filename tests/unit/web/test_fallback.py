"""The sources of an answer about a user: their order, and how often MySQL is read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import Request, Response
from yarl import URL

from app.errors import ServerAway
from app.settings import Settings
from chunks import ClosedPartition
from domain.partitioning import partition_of
from source.user_rows import UserRows
from tests.kit.ownership import FixedOwnership
from web import routing
from web.fallback import Breaker, Fallback, MySQLReads
from web.http.access import HOP_HEADER
from web.http.limits import Limiter
from web.http.problems import Problem, assign_request_id
from web.routing import Router, first_answer, not_served

T = TypeVar("T")

SETTINGS = Settings()
AWAY = not_served("owner-away")
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


class RecordedOwnership(FixedOwnership):
    """Checks which copy is asked for."""

    async def is_caught_up(self, table: str, partition: int, within_s: float) -> bool:
        assert (table, partition, within_s) == ("by_user", 3, SETTINGS.forward_ms / 1000)
        return await super().is_caught_up(table, partition, within_s)


class FixedReads(MySQLReads):
    """Reads that return `rows` without MySQL, and note that they happen."""

    def __init__(self, rows: list[str] | None, asked: list[str]) -> None:
        super().__init__(1, 1.0, None, Breaker(1, 1))
        self.rows, self.asked = rows, asked

    async def try_read(self, read: Callable[[], T]) -> T | None:
        self.asked.append("source")
        return None if self.rows is None else UserRows(1, {"ann": self.rows})


def answer(*, exact: bool, copy: object, rows: list[str] | None, **headers: str) -> tuple[str, list[str]]:
    """The answer about ann without the owner, and the sources that were asked."""
    asked: list[str] = []
    fallback = Fallback(SETTINGS, RecordedOwnership(caught_up=frozenset({3} if exact else ())), FixedReads(rows, asked))

    def read_copy() -> str:
        asked.append("copy")
        if isinstance(copy, Exception):
            raise copy
        return str(copy)

    async def standby(partition: int) -> Response | None:
        text = await fallback.read_standby(partition, read_copy)
        return None if text is None else Response(text=text)

    async def mysql(_partition: int) -> Response | None:
        found = await fallback.read_mysql(request(**headers), ["ann"])
        return None if found is None else Response(text=found.purchases["ann"][0])

    try:
        text = asyncio.run(first_answer((standby, mysql), 3, AWAY)).text
    except Problem as problem:
        text = problem.code
    return text, asked


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
def test_an_exact_copy_comes_before_the_source_and_the_source_before_an_error(exact, copy, rows, said, asked):
    assert answer(exact=exact, copy=copy, rows=rows) == (said, asked)


def test_a_request_that_was_forwarded_may_be_answered_from_a_copy_but_the_source_is_asked_by_the_first_worker():
    hop = {HOP_HEADER: "1"}
    assert answer(exact=True, copy="a copy", rows=ROWS, **hop) == ("a copy", ["copy"])
    assert answer(exact=False, copy="a copy", rows=ROWS, **hop) == ("owner-away", [])


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


def create_reads(per_second: int = 0, failures: int = 3, timeout_s: float = 5.0, max_reads: int = 4) -> MySQLReads:
    limiter = Limiter(per_second, clock=Clock()) if per_second else None
    return MySQLReads(max_reads, timeout_s, limiter, Breaker(failures, 10, Clock()))


def test_no_more_reads_than_the_rate_allows_and_none_at_rate_0():
    async def work(reads: MySQLReads) -> list:
        return [await reads.try_read(lambda: "read") for _ in range(4)]

    assert asyncio.run(work(create_reads(per_second=3))) == ["read", "read", "read", None]
    assert asyncio.run(work(create_reads())) == [None] * 4


def test_after_failures_in_a_row_nothing_is_read_any_more():
    tried = []

    def failing() -> None:
        tried.append(1)
        fails()

    async def work() -> None:
        reads = create_reads(per_second=100)
        for _ in range(5):
            assert await reads.try_read(failing) is None

    asyncio.run(work())
    assert len(tried) == 3


def test_a_read_that_takes_too_long_is_a_failure_and_stays_open_until_it_ends():
    going_on = threading.Event()

    async def work() -> None:
        reads = create_reads(per_second=100, timeout_s=0.2, failures=9, max_reads=1)
        assert await reads.try_read(going_on.wait) is None
        assert await reads.try_read(lambda: "read") is None, "no second one beside it"
        going_on.set()
        while reads._fallback_slots.locked():
            await asyncio.sleep(0)
        assert await reads.try_read(lambda: "read") == "read"

    asyncio.run(work())


def test_a_read_that_was_asked_for_waits_for_its_turn_but_not_for_ever():
    going_on = threading.Event()

    async def work() -> None:
        reads = create_reads(per_second=1, timeout_s=0.01, max_reads=1)
        first = asyncio.create_task(reads.read(going_on.wait))
        while not reads._requested_slots.locked():
            await asyncio.sleep(0)
        with pytest.raises(ServerAway, match="LATELY_SOURCE_READS"):
            await reads.read(lambda: "read")
        # Who asks in place of a table does not wait for those.
        assert await create_reads(per_second=1).try_read(lambda: "read") == "read"
        going_on.set()
        await first
        assert await reads.read(lambda: "read") == "read"

    asyncio.run(work())


# --- the way to the owner -------------------------------------------------------------------------------------

USER = b"ann"
PARTITION = partition_of(USER, SETTINGS.partitions)
HERE, THERE = "here", "http://there:6066/"


def owned_by(owner: str | None, is_ready: bool = True) -> FixedOwnership:
    """The ownership in which `owner` has ann's partition."""
    return FixedOwnership(is_ready, {} if owner == HERE else {PARTITION: owner})


def respond(ownership: FixedOwnership, answer: object = "owner's", forward: object = None, **headers: str) -> str:
    """Which source responds: this worker, the one that it forwards to, or a fallback, with the reason."""
    fallbacks_tried = []

    def here(partition: int) -> Response:
        assert partition == PARTITION
        if isinstance(answer, Exception):
            raise answer
        return Response(text="here")

    async def there(_: Request, owner: URL) -> Response:
        assert str(owner) == THERE
        if isinstance(forward, Exception):
            raise forward
        return forward or Response(text="there")

    async def instead(partition: int) -> None:
        assert partition == PARTITION
        fallbacks_tried.append(partition)

    async def work() -> str:
        router = Router(SETTINGS, ownership, aiohttp.ClientSession)
        answered = router.respond(request(**headers), "by_user", USER, here, there, (instead,))
        return (answered if isinstance(answered, Response) else await answered).text

    try:
        return asyncio.run(work())
    except Problem as problem:
        if not fallbacks_tried:
            raise
        return f"instead: {problem.code}"


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
def test_the_owner_answers_and_only_where_it_cannot_somebody_else(owner, ready, answer, forward, said):
    assert respond(owned_by(owner, ready), answer, forward) == said


def test_the_owner_may_be_in_another_group_and_without_one_there_are_the_other_sources():
    others = ("by_product",)
    assert respond(FixedOwnership(tables=others, elsewhere={"by_user": THERE})) == "there"
    assert respond(FixedOwnership(is_worker_ready=False, tables=others, elsewhere={"by_user": THERE})) == "there"
    assert respond(FixedOwnership(tables=others, elsewhere={"by_user": None})) == "instead: owner-away"
    assert respond(FixedOwnership(tables=others)) == "instead: agent-elsewhere"


def test_a_response_that_waits_has_the_same_sources():
    async def here(_partition: int) -> Response:
        await asyncio.sleep(0)
        raise ClosedPartition

    async def copy(_partition: int) -> Response:
        return Response(text="a copy")

    async def work(ownership: FixedOwnership) -> str | None:
        router = Router(SETTINGS, ownership, aiohttp.ClientSession)
        response = await router.respond_later(request(), "by_user", USER, here, fallbacks=(copy,))
        assert isinstance(response, Response)
        return response.text

    assert asyncio.run(work(owned_by(HERE))) == "a copy"
    assert asyncio.run(work(owned_by(None))) == "a copy"


def test_a_request_that_was_forwarded_is_not_forwarded_again():
    hop = {HOP_HEADER: "1"}
    with pytest.raises(Problem) as caught:
        respond(owned_by(THERE), **hop)
    assert (caught.value.status, caught.value.code) == (508, "routing-loop")
    assert respond(owned_by(THERE, is_ready=False), **hop) == "instead: recovering"
    assert respond(owned_by(HERE), **hop) == "here"


def test_a_worker_that_was_frozen_ends_before_it_answers_with_what_is_no_longer_its_own():
    class Ended(Exception):
        pass

    class FrozenOwnership(FixedOwnership):
        def check_frozen(self) -> None:
            raise Ended

    with pytest.raises(Ended):
        respond(FrozenOwnership())


def test_what_is_wrong_with_a_request_is_said_by_the_owner_and_nobody_else():
    with pytest.raises(Problem) as caught:
        respond(owned_by(HERE), STALE)
    assert caught.value is STALE


def test_a_worker_that_stops_while_it_forwards_says_that_the_owner_is_away():
    async def forward() -> None:
        session = aiohttp.ClientSession()
        await session.close()
        asked = request()
        assign_request_id(asked)
        await Router(SETTINGS, FixedOwnership(), lambda: session).forward(asked, URL("http://127.0.0.1:9"))

    with pytest.raises(Problem) as raised:
        asyncio.run(forward())
    assert (raised.value.status, raised.value.code) == (503, "owner-away")
