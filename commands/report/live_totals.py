"""Do the live tables say the same as the log? The totals by product of both, at the same position."""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from urllib.parse import urlsplit

from app.errors import BadSetting, ServerAway
from app.settings import Settings
from commands.report import build
from commands.report.cache import Cache
from commands.report.position import Position, show
from commands.worker_client import workers
from domain.errors import UnknownFormat
from domain.totals import Totals
from domain.values import EXACT, money

#: How long a worker may take to show its totals; a report does not wait for one that recovers.
PATIENCE_S = 15
CONNECT_S = 2
SHOWN = 20

#: Partition of `orders` and product -> totals.
ByProduct = dict[tuple[int, str], Totals]


class Live(NamedTuple):
    """The totals of the workers at a position of `orders`."""

    position: Position
    totals: ByProduct


class Compared(NamedTuple):
    """What the log and the live tables say in all, and the products of which they do not say the same."""

    position: Position
    log: Totals
    live: Totals
    different: dict[tuple[int, str], tuple[Totals, Totals]]

    def lines(self) -> list[str]:
        """The same for people."""
        revenue = EXACT.subtract(self.live.revenue, self.log.revenue)
        said = [
            f"live tables at {show(self.position)}: {self.live.purchases} purchases, {money(self.live.revenue)}; "
            f"the log: {self.log.purchases} purchases, {money(self.log.revenue)}; "
            f"difference: {self.live.purchases - self.log.purchases} purchases, {money(revenue)}"
        ]
        for (partition, product), (log, live) in sorted(self.different.items())[:SHOWN]:
            said.append(
                f"different in partition {partition}: {product!r} has {log.purchases} purchases, {money(log.revenue)} "
                f"in the log, and {live.purchases}, {money(live.revenue)} in the live tables"
            )
        if len(self.different) > SHOWN:
            said.append(f"and {len(self.different) - SHOWN} more")
        return said


async def totals(settings: Settings, worker: str | None) -> Live | str:
    """What the workers have, or why that cannot be told."""
    if not settings.by_product:
        return "LATELY_BY_PRODUCT is 0, so there are no totals by product"
    url = worker or f"http://{settings.web_host}:{settings.web_port}"
    if not await _listens(url):
        return f"no worker at {url}"
    try:
        async with workers(settings, url) as tables:
            found = await asyncio.wait_for(tables.product_partials(), PATIENCE_S)
    except asyncio.TimeoutError:
        return f"the worker at {url} did not show its totals at one position within {PATIENCE_S} s"
    except (ServerAway, BadSetting, UnknownFormat) as exc:
        return str(exc)
    return Live(
        {partition: position for partition, (position, _) in found.items()},
        {(partition, product): one for partition, (_, known) in found.items() for product, one in known.items()},
    )


def compare(cache: Cache, live: Live) -> Compared:
    """The comparison; the purchases have to be folded at the position of `live`."""
    rows = cache.run(
        "SELECT partition, product_name, count(*), sum(price) FROM scratch.purchases GROUP BY partition, product_name"
    )
    log = {(partition, product): Totals(count, revenue) for partition, product, count, revenue in rows}
    nothing = Totals()
    pairs = {key: (log.get(key, nothing), live.totals.get(key, nothing)) for key in {*log, *live.totals}}
    return Compared(
        live.position,
        sum(log.values(), nothing),
        sum(live.totals.values(), nothing),
        {key: pair for key, pair in pairs.items() if pair[0] != pair[1]},
    )


def same_place(cache: Cache, one: Position, other: Position) -> bool:
    """Whether no event lies between two positions."""
    return not any(
        cache.run(
            "SELECT 1 FROM events WHERE partition = ? AND place >= ? AND place < ? LIMIT 1",
            [partition, min(one[partition], other[partition]), max(one[partition], other[partition])],
        )
        for partition in one
    )


def fold(cache: Cache, live: Live) -> Compared:
    """Fold at the position of `live`, and compare."""
    build.fold(cache, live.position)
    return compare(cache, live)


async def _listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        connecting = asyncio.open_connection(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        _, writer = await asyncio.wait_for(connecting, CONNECT_S)
    except (OSError, ValueError, asyncio.TimeoutError):
        return False
    writer.close()
    return True
