"""The daily reports: once a day one of the workers lets a process of its own make them."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

from faust.types import TP
from mode import Service

from app.core import address, app, orders, settings
from app.settings import Settings

LOOK_EVERY_S, AGAIN_AFTER_S = 20.0, 300.0


def due(now: datetime, at: str, tz: str) -> date | None:
    """The day of which reports are to be made: the day before, once it is `at` (HH:MM) in `tz`; None before that."""
    local = now.astimezone(ZoneInfo(tz))
    return local.date() - timedelta(days=1) if local.time() >= time.fromisoformat(at) else None


class DailyReports(Service):
    """Looks at the clock, as long as the worker runs; the worker that `leads` makes what is missing.

    What was made is known by its files, so a day is not made twice, whoever leads: by `lately report daily`, which
    makes only what is not there.
    """

    def __init__(
        self,
        settings: Settings,
        leads: Callable[[], bool],
        command: Callable[[], Sequence[str]],
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        self._settings, self._leads, self._command, self._now = settings, leads, command, now
        self._made: date | None = None
        self._failed_at: datetime | None = None
        self._process: asyncio.subprocess.Process | None = None

    @Service.task
    async def _watch(self) -> None:
        while self._settings.report_daily and not self.should_stop:
            await self.look()
            await self.sleep(LOOK_EVERY_S)

    async def on_stop(self) -> None:
        """End what is at work; it is done again by whoever leads next."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def look(self) -> None:
        """Make the reports where it is time for them; what fails is tried again after a while."""
        now = self._now()
        day = due(now, self._settings.report_daily, self._settings.report_tz)
        waits = self._failed_at is not None and (now - self._failed_at).total_seconds() < AGAIN_AFTER_S
        if day is None or day == self._made or waits or not self._leads():
            return
        code, said = await self._run(day)
        if code == 0:
            self._made, self._failed_at = day, None
            self.log.info("the reports of %s are in %s (%s)", day, self._settings.report_dir, said)
        elif not self.should_stop:
            self._failed_at = now
            self.log.error(
                "the reports of %s failed, trying again in %d s: exit %s, %s", day, AGAIN_AFTER_S, code, said
            )

    async def _run(self, day: date) -> tuple[int, str]:
        """Exit code, and the last thing that was said."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(), "--day", day.isoformat(), stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
            )
        except OSError as exc:
            return 1, str(exc)
        _, errors = await self._process.communicate()
        return self._process.returncode, errors.decode(errors="replace").strip().rpartition("\n")[2]


def _leads() -> bool:
    """Whether this worker owns the first partition of `orders`; no other one does."""
    return "by_user" in app.tables and TP(orders.get_topic_name(), 0) in app.tables.ledgers


def _command() -> Sequence[str]:
    # It is in the session and the cgroup of the worker.
    return (sys.executable, "-m", "app", "report", "daily", "--idle", "--worker", address())


app.service(DailyReports(settings, _leads, _command))
