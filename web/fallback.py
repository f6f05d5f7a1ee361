"""Further sources for purchases, in case that the owner of a partition does not respond.

1. The copy of the partition on this worker, a standby or active until a moment ago, if it contains
   everything that any client may have received.
2. MySQL, at most LATELY_FALLBACK_PER_S times a second, and not while it fails.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from aiohttp.web import Request

from app import metrics
from app.errors import ServerAway
from app.settings import Settings
from chunks import ClosedPartition, discard_exception
from domain.errors import LatelyError
from source.pool import ConnectionPool
from source.user_rows import UserRows, read_user_rows
from web.http.access import is_for_owner
from web.http.limits import Limiter
from web.worker import Ownership

log = logging.getLogger(__name__)

T = TypeVar("T")

#: The sources that are not the owner: roles of a response, and with NOBODY the labels of
#: `lately_fallbacks_total`.
STANDBY: Final = "standby"
SOURCE: Final = "source"
NOBODY: Final = "nobody"


class Breaker:
    """Blocks all calls for `pause_s` seconds after `max_failures` failures in a row.

    Then it allows one call.
    """

    def __init__(self, max_failures: int, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_failures, self._pause_s, self._clock = max_failures, pause_s, clock
        self._failures, self._retry_at = 0, 0.0

    def allows(self) -> bool:
        """Return whether a call is allowed now; report its result with `succeeded` or `failed`."""
        if self._failures < self._max_failures:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._pause_s  # blocks the others until this call ends
        return True

    def succeeded(self) -> None:
        """Allow all calls again."""
        self._failures = 0

    def failed(self) -> None:
        """Count a failure."""
        self._failures += 1
        self._retry_at = self._clock() + self._pause_s


class MySQLReads:
    """Reads of MySQL in threads of their own, at most LATELY_SOURCE_READS of each kind at once.

    A read that a client requests waits for its turn. A read in place of a table never waits, is
    limited to LATELY_FALLBACK_PER_S (0: none), and does not happen while MySQL fails.
    """

    def __init__(self, max_reads: int, timeout_s: float, limiter: Limiter | None, breaker: Breaker) -> None:
        self._max_reads, self._timeout_s, self._limiter, self._breaker = max_reads, timeout_s, limiter, breaker
        # The event loop's own threads also resolve host names.
        self._threads = ThreadPoolExecutor(2 * max_reads, thread_name_prefix="mysql")
        self._fallback_slots, self._requested_slots = asyncio.Semaphore(max_reads), asyncio.Semaphore(max_reads)

    @classmethod
    def from_settings(cls, settings: Settings) -> MySQLReads:
        """Create the reads with the limits that the settings name."""
        limiter = Limiter(settings.fallback_per_s) if settings.fallback_per_s else None
        breaker = Breaker(settings.fallback_failures, settings.fallback_pause_s)
        return cls(settings.source_reads, settings.fallback_ms / 1000, limiter, breaker)

    async def read(self, read: Callable[[], T]) -> T:
        """Return the result of `read`, which a client requests.

        Raises ServerAway, also after waiting for too long.
        """
        try:
            await asyncio.wait_for(self._requested_slots.acquire(), self._timeout_s)
        except asyncio.TimeoutError:
            raise ServerAway(f"{self._max_reads} reads of MySQL are open (LATELY_SOURCE_READS): try again") from None
        try:
            return await self._run(read)
        finally:
            self._requested_slots.release()

    async def try_read(self, read: Callable[[], T]) -> T | None:
        """Return the result of `read` in place of a table; None if it is not allowed now, or fails.

        A read that takes longer than the timeout counts as a failure, and occupies its slot until
        it ends.
        """
        if self._limiter is None or self._fallback_slots.locked():
            return None
        if self._limiter.take("") or not self._breaker.allows():
            return None
        reading = asyncio.create_task(self._run_in_slot(read))
        reading.add_done_callback(discard_exception)
        try:
            result = await asyncio.wait_for(asyncio.shield(reading), self._timeout_s)
        except (LatelyError, asyncio.TimeoutError) as exc:
            self._breaker.failed()
            log.warning("MySQL does not answer in place of a table: %s", str(exc) or f"not within {self._timeout_s} s")
            return None
        self._breaker.succeeded()
        return result

    async def _run_in_slot(self, read: Callable[[], T]) -> T:
        async with self._fallback_slots:
            return await self._run(read)

    async def _run(self, read: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, read)


class Fallback:
    """Reads the purchases of users from the standby copy on this worker, or from MySQL."""

    def __init__(self, settings: Settings, ownership: Ownership, mysql: MySQLReads) -> None:
        self._settings, self._ownership, self.mysql = settings, ownership, mysql
        #: Connections for these reads and for those of traces.
        self.connections = ConnectionPool(settings, settings.source_reads)

    async def read_standby(self, partition: int, read: Callable[[], T]) -> T | None:
        """Return the result of `read` for a partition; None if the copy may be incomplete.

        `read` must not wait for anything. Raises Problem as `read` does.
        """
        if not await self._ownership.is_caught_up("by_user", partition, self._settings.forward_ms / 1000):
            return None
        try:
            result = read()
        except ClosedPartition:
            return None
        metrics.FALLBACKS.labels(STANDBY).inc()
        return result

    async def read_requested(self, users: list[str]) -> UserRows:
        """Return the rows of users in MySQL, which the client requests.

        Raises ServerAway, BadSource.
        """
        return await self.mysql.read(lambda: self._read_users(users))

    async def read_mysql(self, request: Request, users: list[str]) -> UserRows | None:
        """Return the rows of users in MySQL, in place of a table.

        None if the request may not read MySQL, or MySQL does not answer.
        """
        if is_for_owner(request):
            return None  # the worker that forwarded the request reads MySQL
        rows = await self.mysql.try_read(lambda: self._read_users(users))
        if rows is not None:
            metrics.FALLBACKS.labels(SOURCE).inc()
        return rows

    def _read_users(self, users: list[str]) -> UserRows:
        return read_user_rows(self._settings, users, self.connections.borrow)
