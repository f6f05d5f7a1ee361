"""`lately report`: what was bought in a span of time, counted from the log of all events or from the shop's table.

The same arguments and the same position give the same bytes, whenever that is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from pathlib import Path
from typing import NamedTuple

from app.settings import Settings
from app.topics import Topics
from commands.report import build, calendar, live_totals, position, read_log, read_mysql
from commands.report.build import LOG, Asked
from commands.report.cache import Cache, Damaged
from commands.report.live_totals import Compared, Live
from commands.report.model import Report
from commands.report.position import Position
from domain.errors import LatelyError

MEMORY_MB = 128

Progress = Callable[[int, int], None]


class Made(NamedTuple):
    """Reports, and how the log compares with the live tables, or why it was not compared."""

    reports: list[Report]
    compared: Compared | str


async def run(
    settings: Settings,
    asked: list[Asked],
    as_of: str | None = None,
    check: bool = True,
    worker: str | None = None,
    memory_mb: int = MEMORY_MB,
    progress: Progress = lambda done, total: None,
) -> Made:
    """Make reports of one source, all at the position `as_of`: as text, or a moment, or where the log ends now.

    With `check` the log is also compared with the live tables. Raises BadReport, BadSource, ServerAway, LatelyError.
    """
    source = asked[0].source
    folder = Path(f"{settings.folder}-report")
    if source == LOG:
        of = f"topic {Topics(settings).orders.name}"
    else:
        of = f"{settings.mysql_host}:{settings.mysql_port}/{settings.mysql_database}.{settings.source_table}"
    try:
        cache = Cache(folder, source, of, memory_mb)
        try:
            try:
                return await _make(settings, cache, asked, as_of, check, worker, progress)
            except Damaged:
                cache.wipe()
                return await _make(settings, cache, asked, as_of, check, worker, progress)
        finally:
            cache.close()
    except (Damaged, OSError) as exc:
        raise LatelyError(
            f"what was read cannot be kept in {folder} ({exc}): is there room, and may it be written?"
        ) from None


async def _make(
    settings: Settings, cache: Cache, asked: list[Asked], as_of: str | None, check: bool, worker: str | None,
    progress: Progress,
) -> Made:  # fmt: skip
    """1. Ask the live tables, which name a position. 2. Read the log up to it and up to `as_of`. 3. Fold and count."""
    if asked[0].source != LOG:
        read_mysql.fill(settings, cache, progress)
        build.fold(cache, {0: cache.positions()[0][0]})
        return Made([build.make(cache, one, {}) for one in asked], "a table of the shop has no position in the log")
    # 1.
    shown: Live | str = await live_totals.totals(settings, worker) if check else "not asked for"
    # 2.
    async with read_log.reading(settings) as topic:
        upto = await _position(settings, topic, as_of, asked[0].tz)
        wanted = shown.position if isinstance(shown, Live) else {}
        await topic.fill(cache, {number: max(at, wanted.get(number, 0)) for number, at in upto.items()}, progress)
    # 3.
    apart = isinstance(shown, Live) and not live_totals.same_place(cache, shown.position, upto)
    compared = live_totals.fold(cache, shown) if apart else shown
    build.fold(cache, upto)
    if isinstance(compared, Live):
        compared = live_totals.compare(cache, compared)
    return Made([build.make(cache, one, upto) for one in asked], compared)


async def _position(settings: Settings, topic: read_log.Log, as_of: str | None, tz: tzinfo) -> Position:
    if as_of is None:
        return await topic.end()
    if calendar.is_moment(as_of):
        return await topic.at(calendar.moment(as_of, tz, "--as-of"))
    wanted = position.parse(as_of, settings.partitions)
    await topic.require(wanted)
    return wanted
