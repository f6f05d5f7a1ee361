"""The bestsellers of each time window and of each category, from the sales of all products."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from chunks import discard_exception
from domain.product_history import RETENTION_HOURS
from tables.product_sales import SalesCopy
from tables.similar import current_hour
from web.schemas import Window

#: Bestsellers of each window and of each category.
MAX_BESTSELLERS = 200
#: Window -> hours.
WINDOWS: dict[Window, int] = {"1h": 1, "24h": 24, "7d": RETENTION_HOURS}
LONGEST_WINDOW: Window = "7d"
#: A request does not wait for a scan of all products that takes longer than SLOW_SCAN_S, unless the
#: result of the previous scan is older than MAX_AGE_S.
SLOW_SCAN_S, MAX_AGE_S = 0.05, 60.0
#: A scan lets other requests run after so many seconds.
SLICE_S = 0.002

#: Products and their numbers of buyers, the bestseller first.
Ranking = list[tuple[str, int]]


class Bestsellers(NamedTuple):
    """The bestsellers of each window and of each category."""

    by_window: dict[Window, Ranking]
    by_category: dict[str, Ranking]


class BestsellerScan:
    """Scans all products for the bestsellers, at most once a second and 5 % of the time."""

    def __init__(self, sales: SalesCopy) -> None:
        self._sales = sales
        self._result = Bestsellers({}, {})
        self._started_at, self._next_at, self._is_slow = 0.0, 0.0, False
        self._scan_task: asyncio.Task[None] | None = None

    async def read(self) -> Bestsellers:
        """Return the bestsellers; those of the previous scan if none is due, or if scans are slow."""
        now = time.monotonic()
        if self._scan_task is None and now >= self._next_at:
            self._scan_task = asyncio.create_task(self._scan(now))
            self._scan_task.add_done_callback(discard_exception)
        if self._scan_task is not None and not (self._is_slow and now < self._started_at + MAX_AGE_S):
            await asyncio.shield(self._scan_task)
        return self._result

    async def _scan(self, started_at: float) -> None:
        hour, hours = current_hour(), [*WINDOWS.values()]
        windows = [_Top() for _ in WINDOWS]
        categories: dict[str, _Top] = {}
        busy_s, resumed_at = 0.0, time.monotonic()
        try:
            for part in self._sales.parts():
                for name, row in part:
                    if row.hours:
                        for top, buyers in zip(windows, row.recent_buyers(hours, hour), strict=True):
                            if buyers >= top.min_buyers:
                                top.add(name, buyers)
                    category = row.category
                    if category is not None and row.buyers > 0:
                        category_top = categories.get(category)
                        if category_top is None:
                            category_top = categories[category] = _Top()
                        if row.buyers >= category_top.min_buyers:
                            category_top.add(name, row.buyers)
                elapsed_s = time.monotonic() - resumed_at
                if elapsed_s > SLICE_S:
                    busy_s += elapsed_s
                    await asyncio.sleep(0)
                    resumed_at = time.monotonic()
            result = Bestsellers({}, {})
            for window, top in zip(WINDOWS, windows, strict=True):
                result.by_window[window] = top.ranking()
            for category, top in categories.items():
                result.by_category[category] = top.ranking()
                if time.monotonic() - resumed_at > SLICE_S:
                    busy_s += time.monotonic() - resumed_at
                    await asyncio.sleep(0)
                    resumed_at = time.monotonic()
            busy_s += time.monotonic() - resumed_at
            self._result = result
            self._started_at, self._is_slow = started_at, busy_s > SLOW_SCAN_S
            self._next_at = time.monotonic() + max(1.0, min(20 * busy_s, MAX_AGE_S / 2))
        finally:
            self._scan_task = None


class _Top:
    """The products with the most buyers of those that were added."""

    def __init__(self) -> None:
        #: So many others have more buyers that a product with less is not in the ranking.
        self.min_buyers = 1
        self._pairs: list[tuple[int, str]] = []

    def add(self, name: str, buyers: int) -> None:
        """Add a product with at least `min_buyers` buyers."""
        self._pairs.append((-buyers, name))
        if len(self._pairs) >= 2 * MAX_BESTSELLERS:
            self._trim()
            self.min_buyers = -self._pairs[-1][0]

    def ranking(self) -> Ranking:
        """Return the MAX_BESTSELLERS best of all products, of equal ones by name."""
        self._trim()
        return [(name, -negative) for negative, name in self._pairs]

    def _trim(self) -> None:
        self._pairs.sort()
        del self._pairs[MAX_BESTSELLERS:]
