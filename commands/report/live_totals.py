"""Compares the totals by product of the live tables with those of the log, at one position."""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from urllib.parse import urlsplit

from app.errors import BadSetting, ServerAway
from app.settings import Settings
from commands.report import build
from commands.report.cache import EventCache
from commands.report.position import Position, format_position
from commands.worker_client import open_worker_client
from domain.errors import UnknownFormat
from domain.totals import Totals
from domain.values import EXACT, money

#: Longest time for reading the totals of the workers; a report does not wait for a recovery.
PATIENCE_S = 15
CONNECT_S = 2
MAX_LISTED = 20

#: Partition of `orders` and product -> totals.
ByProduct = dict[tuple[int, str], Totals]


class LiveTotals(NamedTuple):
    """Totals of the workers at a position of `orders`."""

    position: Position
    totals: ByProduct


class TotalsComparison(NamedTuple):
    """Sums of the log and of the live tables, and the products with different totals."""

    position: Position
    log: Totals
    live: Totals
    different: dict[tuple[int, str], tuple[Totals, Totals]]

    def lines(self) -> list[str]:
        """Format the comparison for people, one line each."""
        revenue = EXACT.subtract(self.live.revenue, self.log.revenue)
        lines = [
            f"live tables at {format_position(self.position)}: {self.live.purchases} purchases, "
            f"{money(self.live.revenue)}; the log: {self.log.purchases} purchases, {money(self.log.revenue)}; "
            f"difference: {self.live.purchases - self.log.purchases} purchases, {money(revenue)}"
        ]
        for (partition, product), (log, live) in sorted(self.different.items())[:MAX_LISTED]:
            lines.append(
                f"different in partition {partition}: {product!r} has {log.purchases} purchases, {money(log.revenue)} "
                f"in the log, and {live.purchases}, {money(live.revenue)} in the live tables"
            )
        if len(self.different) > MAX_LISTED:
            lines.append(f"and {len(self.different) - MAX_LISTED} more")
        return lines


async def read_live_totals(settings: Settings, worker: str | None) -> LiveTotals | str:
    """Read the totals of the workers, or return the reason why they are unavailable."""
    if not settings.by_product:
        return "LATELY_BY_PRODUCT is 0, so there are no totals by product"
    url = worker or settings.worker_url
    if not await _is_listening(url):
        return f"no worker at {url}"
    try:
        async with open_worker_client(settings, url) as tables:
            totals_of = await asyncio.wait_for(tables.read_product_partials(), PATIENCE_S)
    except asyncio.TimeoutError:
        return f"the worker at {url} did not show its totals at one position within {PATIENCE_S} s"
    except (ServerAway, BadSetting, UnknownFormat) as exc:
        return str(exc)
    return LiveTotals(
        {partition: position for partition, (position, _) in totals_of.items()},
        {
            (partition, product): totals
            for partition, (_, products) in totals_of.items()
            for product, totals in products.items()
        },
    )


def compare(cache: EventCache, live: LiveTotals) -> TotalsComparison:
    """Compare with purchases that are folded to the position of `live`."""
    rows = cache.execute(
        "SELECT partition, product_name, count(*), sum(price) FROM scratch.purchases GROUP BY partition, product_name"
    )
    log = {(partition, product): Totals(count, revenue) for partition, product, count, revenue in rows}
    zero = Totals()
    pairs = {key: (log.get(key, zero), live.totals.get(key, zero)) for key in {*log, *live.totals}}
    return TotalsComparison(
        live.position,
        sum(log.values(), zero),
        sum(live.totals.values(), zero),
        {key: pair for key, pair in pairs.items() if pair[0] != pair[1]},
    )


def have_equal_events(cache: EventCache, first: Position, second: Position) -> bool:
    """Return True if no event is between two positions."""
    return not any(
        cache.execute(
            "SELECT 1 FROM events WHERE partition = ? AND place >= ? AND place < ? LIMIT 1",
            [partition, min(first[partition], second[partition]), max(first[partition], second[partition])],
        )
        for partition in first
    )


def fold_and_compare(cache: EventCache, live: LiveTotals) -> TotalsComparison:
    """Fold to the position of `live`, and compare."""
    build.fold_to(cache, live.position)
    return compare(cache, live)


async def _is_listening(url: str) -> bool:
    parts = urlsplit(url)
    try:
        connecting = asyncio.open_connection(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        _, writer = await asyncio.wait_for(connecting, CONNECT_S)
    except (OSError, ValueError, asyncio.TimeoutError):
        return False
    writer.close()
    return True
