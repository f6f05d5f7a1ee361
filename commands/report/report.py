"""`lately report`: purchases in a span of time, counted from the event log or from the shop's table.

Equal arguments and an equal position give equal bytes, at any later time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import NamedTuple

from app.settings import Settings
from app.topics import Topics
from commands.report import build, calendar, live_totals, position, read_log, read_mysql
from commands.report.build import LOG, ReportQuery
from commands.report.cache import DamagedCache, EventCache
from commands.report.live_totals import LiveTotals, TotalsComparison
from commands.report.model import Report
from commands.report.position import Position
from domain.errors import LatelyError

MEMORY_MB = 128

#: Called with the rows that are read, and their total.
Progress = Callable[[int, int], None]


class ReportResult(NamedTuple):
    """Reports, and the comparison of the log with the live tables, or the reason why there is none."""

    reports: list[Report]
    comparison: TotalsComparison | str


async def run(
    settings: Settings,
    queries: Sequence[ReportQuery],
    as_of: str | None = None,
    check: bool = True,
    worker: str | None = None,
    memory_mb: int = MEMORY_MB,
    progress: Progress = lambda done, total: None,
) -> ReportResult:
    """Make the reports of one source at one position: `as_of` as text or moment, by default the end of the log.

    With `check` the log is also compared with the live tables. Raises BadReport, BadSource, ServerAway, LatelyError.
    """
    source = queries[0].source
    folder = Path(f"{settings.folder}-report")
    if source == LOG:
        source_name = f"topic {Topics(settings).orders.name}"
    else:
        source_name = f"{settings.mysql_host}:{settings.mysql_port}/{settings.shop_table}"
    try:
        cache = EventCache(folder, source, source_name, memory_mb)
        try:
            try:
                return await _make(settings, cache, queries, as_of, check, worker, progress)
            except DamagedCache:
                cache.wipe()
                return await _make(settings, cache, queries, as_of, check, worker, progress)
        finally:
            cache.close()
    except (DamagedCache, OSError) as exc:
        raise LatelyError(
            f"the cache in {folder} cannot be used ({exc}): check its free space and its permissions"
        ) from None


async def _make(
    settings: Settings, cache: EventCache, queries: Sequence[ReportQuery], as_of: str | None, check: bool,
    worker: str | None, progress: Progress,
) -> ReportResult:  # fmt: skip
    """1. Read the live totals, which name a position. 2. Read the log up to it and to `as_of`. 3. Fold and count."""
    if queries[0].source != LOG:
        read_mysql.fill(settings, cache, progress)
        build.fold_to(cache, {0: cache.positions()[0][0]})
        reports = [build.build_report(cache, query, {}) for query in queries]
        return ReportResult(reports, "a table of the shop has no position in the log")
    # 1.
    live: LiveTotals | str = await live_totals.read_live_totals(settings, worker) if check else "not requested"
    # 2.
    async with read_log.open_order_log(settings) as log:
        end = await _resolve_position(settings, log, as_of, queries[0].tz)
        live_position = live.position if isinstance(live, LiveTotals) else {}
        last = {partition: max(offset, live_position.get(partition, 0)) for partition, offset in end.items()}
        await log.fill(cache, last, progress)
    # 3.
    comparison: TotalsComparison | str
    if isinstance(live, LiveTotals) and not live_totals.have_equal_events(cache, live.position, end):
        comparison = live_totals.fold_and_compare(cache, live)
        build.fold_to(cache, end)
    else:
        build.fold_to(cache, end)
        comparison = live_totals.compare(cache, live) if isinstance(live, LiveTotals) else live
    return ReportResult([build.build_report(cache, query, end) for query in queries], comparison)


async def _resolve_position(
    settings: Settings, log: read_log.OrderLogReader, as_of: str | None, tz: tzinfo
) -> Position:
    if as_of is None:
        return await log.end()
    if calendar.is_date_or_moment(as_of):
        return await log.at(calendar.moment(as_of, tz, "--as-of"))
    parsed = position.parse_position(as_of, settings.partitions)
    await log.require(parsed)
    return parsed
