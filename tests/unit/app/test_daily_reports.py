"""The daily reports are made once, by the worker that leads, when it is time."""

from __future__ import annotations

import asyncio
import sys
from datetime import date, datetime, timezone
from pathlib import Path

import pytest

from app.services.daily_reports import DailyReports, due
from app.settings import Settings


def utc(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("now", "tz", "day"),
    [
        (utc(10, 4, 29), "UTC", None),
        (utc(10, 4, 30), "UTC", date(2026, 3, 9)),
        (utc(10, 23, 59), "UTC", date(2026, 3, 9)),
        (utc(10, 3, 29), "Europe/Berlin", None),
        (utc(10, 3, 30), "Europe/Berlin", date(2026, 3, 9)),
        (utc(10, 23, 30), "Europe/Berlin", None),
        # The clocks have been put forward.
        (utc(29, 2, 30), "Europe/Berlin", date(2026, 3, 28)),
    ],
)
def test_a_day_is_due_once_it_has_ended_and_its_time_has_come(now: datetime, tz: str, day: date | None):
    assert due(now, "04:30", tz) == day


class Clock:
    """What a service is told of the time, and of whether it leads."""

    def __init__(self) -> None:
        self.now, self.leads = utc(10, 5), True


def service(clock: Clock, log: Path, exits: Path, daily: str = "04:30") -> DailyReports:
    """It runs a program that notes each day it is called with, and ends as `exits` says."""
    program = (
        "import sys, pathlib; log, exits, *words = sys.argv[1:];"
        "pathlib.Path(log).open('a').write(' '.join(words) + '\\n');"
        "print('not so fast', file=sys.stderr); sys.exit(int(pathlib.Path(exits).read_text()))"
    )
    return DailyReports(
        Settings(report_daily=daily), lambda: clock.leads,
        lambda: (sys.executable, "-c", program, str(log), str(exits)),
        lambda: clock.now,
    )  # fmt: skip


def test_reports_are_made_once_a_day_by_the_leader_and_again_where_that_failed(tmp_path: Path, caplog):
    log, exits, clock = tmp_path / "log", tmp_path / "exits", Clock()
    log.touch()
    exits.write_text("0")
    one = service(clock, log, exits)

    def calls() -> list[str]:
        asyncio.run(one.look())
        return log.read_text().splitlines()

    clock.leads = False
    assert calls() == []
    clock.leads = True
    clock.now = utc(10, 4, 29)
    assert calls() == []
    clock.now = utc(10, 4, 30)
    assert calls() == ["--day 2026-03-09"]
    assert calls() == ["--day 2026-03-09"]
    exits.write_text("75")
    clock.now = utc(11, 4, 30)
    assert calls() == ["--day 2026-03-09", "--day 2026-03-10"]
    assert "exit 75, not so fast" in caplog.text
    clock.now = utc(11, 4, 34)
    assert len(calls()) == 2
    exits.write_text("0")
    clock.now = utc(11, 4, 36)
    assert calls() == ["--day 2026-03-09", *["--day 2026-03-10"] * 2]
    assert len(calls()) == 3


def test_a_program_that_is_not_there_harms_no_worker(tmp_path: Path, caplog):
    clock = Clock()
    one = DailyReports(Settings(report_daily="04:30"), lambda: True, lambda: ("/no/such/program",), lambda: clock.now)
    asyncio.run(one.look())
    assert "trying again" in caplog.text
