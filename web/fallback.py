"""What is said of users while the worker that owns their partition says nothing: a copy here, else the shop's database.

1. The copy of the partition on this worker, a standby or active until a moment ago, if it has all that anybody may have
   been shown. 2. MySQL, as often as LATELY_FALLBACK_PER_S allows, and not while it fails. 3. The problem: 503 with
   Retry-After. Never an empty list for want of a table.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aiohttp.web import Request

from app import metrics
from app.core import app, settings
from app.errors import ServerAway
from chunks import ClosedPartition, discard_exception
from domain.errors import LatelyError
from source import user_rows
from source.user_rows import UserRows
from tables import by_user
from web.http.access import HOP_HEADER
from web.http.limits import Limiter
from web.http.problems import Problem

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Who answers where it is not the owner; and nobody, as it is counted.
STANDBY, SOURCE, NOBODY = "standby", "source", "nobody"

#: Its own, as names of hosts are looked up in the common ones.
_threads = ThreadPoolExecutor(2 * settings.source_reads, thread_name_prefix="mysql")
#: The reads of MySQL that are open: those in place of a table, and those that a request wants by name.
_in_place, _wanted = asyncio.Semaphore(settings.source_reads), asyncio.Semaphore(settings.source_reads)


class Breaker:
    """Keeps everybody from what has failed `most` times in a row, for `pause_s` seconds; then one may try again."""

    def __init__(self, most: int, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._pause_s, self._clock = most, pause_s, clock
        self._failures, self._again_at = 0, 0.0

    def allows(self) -> bool:
        """Whether to try now; what comes of it is told by `succeeded` or `failed`."""
        if self._failures < self._most:
            return True
        now = self._clock()
        if now < self._again_at:
            return False
        self._again_at = now + self._pause_s  # for all who come meanwhile
        return True

    def succeeded(self) -> None:
        """Everybody may try again."""
        self._failures = 0

    def failed(self) -> None:
        """One failure more."""
        self._failures += 1
        self._again_at = self._clock() + self._pause_s


async def _in_thread(read: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads, read)


class Reads:
    """Reads of MySQL that nobody has asked for: so many a second, within `within_s` seconds, and none while it fails.

    `limiter` None: none at all. What takes longer than `within_s` is a failure, and stays open until it ends.
    """

    def __init__(
        self, limiter: Limiter | None, breaker: Breaker, within_s: float, opened: asyncio.Semaphore = _in_place
    ) -> None:
        self._limiter, self._breaker, self._within_s, self._opened = limiter, breaker, within_s, opened

    async def ask(self, read: Callable[[], T]) -> T | None:
        """What `read` returns, which runs in a thread of its own; None where it may not be asked or fails."""
        if self._limiter is None or self._opened.locked() or self._limiter.take("") or not self._breaker.allows():
            return None
        reading_now = asyncio.create_task(self._read(read))
        reading_now.add_done_callback(discard_exception)
        try:
            answer = await asyncio.wait_for(asyncio.shield(reading_now), self._within_s)
        except (LatelyError, asyncio.TimeoutError) as exc:
            self._breaker.failed()
            log.warning("MySQL does not answer in place of a table: %s", str(exc) or f"not within {self._within_s} s")
            return None
        self._breaker.succeeded()
        return answer

    async def _read(self, read: Callable[[], T]) -> T:
        async with self._opened:
            return await _in_thread(read)


reads = Reads(
    Limiter(settings.fallback_per_s) if settings.fallback_per_s else None,
    Breaker(settings.fallback_failures, settings.fallback_pause_s),
    settings.fallback_ms / 1000,
)


async def read(ask: Callable[[], T]) -> T:
    """What `ask` reads from MySQL, which the request wants by name. Raises ServerAway, also where too many wait."""
    try:
        await asyncio.wait_for(_wanted.acquire(), settings.fallback_ms / 1000)
    except asyncio.TimeoutError:
        raise ServerAway(f"{settings.source_reads} reads of MySQL are open (LATELY_SOURCE_READS): try again") from None
    try:
        return await _in_thread(ask)
    finally:
        _wanted.release()


async def instead(
    request: Request,
    problem: Problem,
    user: str,
    partition: int,
    from_copy: Callable[[], T],
    from_source: Callable[[UserRows], T],
) -> T:
    """What can be said of a user though the owner of the partition says nothing; raises the problem if nothing can.

    `from_copy` reads the table, `from_source` is given what MySQL has of the user.
    """
    try:
        said = await copied(partition, from_copy)
    except Problem as exc:
        said, problem = None, exc  # such as too-stale, which MySQL is not
    if said is not None:
        return said
    found = await asked(request, [user])
    if found is None:
        metrics.FALLBACKS.labels(NOBODY).inc()
        raise problem
    return from_source(found)


async def copied(partition: int, read: Callable[[], T]) -> T | None:
    """What `read` finds in this worker's copy of a partition of by_user; None where something may be missing in it."""
    if not await app.tables.standby.is_caught_up(by_user.by_user, partition, settings.forward_ms / 1000):
        return None
    try:
        said = read()
    except ClosedPartition:
        return None
    metrics.FALLBACKS.labels(STANDBY).inc()
    return said


async def asked(request: Request, users: list[str]) -> UserRows | None:
    """What MySQL has of some users; None where it may not be asked or does not answer."""
    if HOP_HEADER in request.headers:
        return None  # whoever forwarded the request asks it
    found = await reads.ask(lambda: user_rows.read_user_rows(settings, users))
    if found is not None:
        metrics.FALLBACKS.labels(SOURCE).inc()
    return found
