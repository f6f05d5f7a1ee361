"""Lists of products for a product or a user.

A list contains products with common buyers, then bestsellers of the same category, then of all
categories. All data is read from the tables of this worker; if it does not own a partition that is
needed, ClosedPartition is raised.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable
from heapq import nsmallest
from itertools import islice
from typing import NamedTuple

from chunks import ClosedPartition, discard_exception
from domain.co_purchases import SalesSummary, cosine_similarity
from domain.partitioning import partition_of
from domain.product_history import RETENTION_HOURS, ProductHistory
from tables.by_user import ByUserReader
from tables.similar import SimilarReader, current_hour
from web.schemas import Suggestion, SuggestionReason, Window
from web.worker import Ownership

#: Rows of a list if the request has no limit.
DEFAULT_LIMIT = 10
#: The neighbours of a product that are scored: those with the most common buyers.
MAX_NEIGHBOURS = 1_000
#: The products of a user that the recommendations are derived from: the newest ones.
MAX_SEEDS = 10
#: Keys of one read. It takes some milliseconds; between two reads the event loop serves other
#: requests.
READ_KEYS = 500
#: Bestsellers of each window and of each category.
MAX_BESTSELLERS = 200
#: Window -> hours.
WINDOWS: dict[Window, int] = {"1h": 1, "24h": 24, "7d": RETENTION_HOURS}
LONGEST_WINDOW: Window = "7d"
#: A request does not wait for a scan of all products that takes longer than SLOW_SCAN_S, unless the
#: result of the previous scan is older than MAX_AGE_S.
SLOW_SCAN_S, MAX_AGE_S = 0.05, 60.0
#: Scores are integers of this unit, so that a sum does not depend on the order of its terms.
SCORE_UNIT = 1_000_000

#: Products and their numbers of buyers, the bestseller first.
Ranking = list[tuple[str, int]]


class Neighbour(NamedTuple):
    """A product that has buyers in common with another one, and their similarity."""

    score: int
    name: str
    common_buyers: int


class Bestsellers(NamedTuple):
    """The bestsellers of each window and of each category."""

    by_window: dict[Window, Ranking]
    by_category: dict[str, Ranking]


class OwnedPartitions:
    """The partitions that this worker owns. A standby may be open, too, but it may have a lag."""

    def __init__(self, partitions: int, ownership: Ownership) -> None:
        self._partitions, self._ownership = partitions, ownership

    def of_key(self, table: str, key: str) -> int:
        """Return the partition of a key. Raises ClosedPartition if this worker does not own it."""
        partition = partition_of(key.encode(), self._partitions)
        self.require(table, partition)
        return partition

    def require_all(self, table: str) -> range:
        """Return all partitions of a table.

        Raises ClosedPartition if this worker does not own all of them.
        """
        partitions = range(self._partitions)
        for partition in partitions:
            self.require(table, partition)
        return partitions

    def require(self, table: str, partition: int) -> None:
        """Raise ClosedPartition if this worker does not own a partition."""
        if not self._ownership.is_owned(table, partition):
            raise ClosedPartition(f"partition {partition} of {table} is not owned here")


class BestsellerScan:
    """Scans all products for the bestsellers, at most once a second and 5 % of the time."""

    def __init__(self, owned: OwnedPartitions, similar: SimilarReader) -> None:
        self._owned, self._similar = owned, similar
        self._result = Bestsellers({}, {})
        self._started_at, self._next_at, self._is_slow = 0.0, 0.0, False
        self._scan_task: asyncio.Task[None] | None = None

    async def read(self) -> Bestsellers:
        """Return the bestsellers; those of the previous scan if none is due, or if scans are slow.

        Raises ClosedPartition.
        """
        self._owned.require_all("similar")
        now = time.monotonic()
        if self._scan_task is None and now >= self._next_at:
            self._scan_task = asyncio.create_task(self._scan(now))
            self._scan_task.add_done_callback(discard_exception)
        if self._scan_task is not None and not (self._is_slow and now < self._started_at + MAX_AGE_S):
            await asyncio.shield(self._scan_task)
        return self._result

    async def _scan(self, started_at: float) -> None:
        hour = current_hour()
        windows: dict[Window, Ranking] = {window: [] for window in WINDOWS}
        categories: dict[str, Ranking] = {}
        busy_s = 0.0
        try:
            for partition in self._owned.require_all("similar"):
                after: str | None = None
                is_last = False
                while not is_last:
                    resumed_at = time.monotonic()
                    self._owned.require("similar", partition)
                    products = self._similar.products(partition, after, READ_KEYS)
                    for name, sales in products:
                        for window, buyers in zip(WINDOWS, sales.recent_buyers(WINDOWS.values(), hour), strict=True):
                            if buyers > 0:
                                _add(windows[window], name, buyers)
                        if sales.category is not None and sales.buyers > 0:
                            _add(categories.setdefault(sales.category[1], []), name, sales.buyers)
                    is_last = len(products) < READ_KEYS
                    after = products[-1][0] if products else None
                    busy_s += time.monotonic() - resumed_at
                    await asyncio.sleep(0)
            self._result = Bestsellers(
                {window: _top(ranking) for window, ranking in windows.items()},
                {category: _top(ranking) for category, ranking in categories.items()},
            )
            self._started_at, self._is_slow = started_at, busy_s > SLOW_SCAN_S
            self._next_at = time.monotonic() + max(1.0, min(20 * busy_s, MAX_AGE_S / 2))
        finally:
            self._scan_task = None


def _add(ranking: Ranking, name: str, buyers: int) -> None:
    ranking.append((name, buyers))
    if len(ranking) >= 10 * MAX_BESTSELLERS:
        ranking[:] = _top(ranking)


def _top(ranking: Ranking) -> Ranking:
    return nsmallest(MAX_BESTSELLERS, ranking, key=lambda pair: (-pair[1], pair[0]))


class Recommender:
    """Builds the lists of products."""

    def __init__(self, partitions: int, ownership: Ownership, by_user: ByUserReader, similar: SimilarReader) -> None:
        self._owned = OwnedPartitions(partitions, ownership)
        self._by_user, self._similar = by_user, similar
        self._bestsellers = BestsellerScan(self._owned, similar)

    async def similar_products(
        self,
        product_name: str,
        limit: int,
        *,
        for_user: str | None = None,
        complementary: bool = False,
        fallback: bool = True,
    ) -> list[Suggestion] | None:
        """Return up to `limit` products that have buyers in common with a product, best first.

        None if the product has no sales.

        The list contains neither the product nor products of `for_user`, and with `complementary`
        no product of its category. With `fallback` it is filled up with bestsellers of its
        category, then of all categories. Raises ClosedPartition.
        """
        summary = self.read_summary(product_name)
        if summary is None:
            return None
        excluded = {product_name, *(() if for_user is None else self.purchased_products(for_user))}
        neighbours = await self._read_neighbours(product_name, summary, {})
        neighbours.sort(key=lambda neighbour: (-neighbour.score, neighbour.name))
        bestsellers = await self._bestsellers.read() if fallback else None
        if complementary:
            popular = [name for name, _ in bestsellers.by_window[LONGEST_WINDOW]] if bestsellers else []
            names = [*(neighbour.name for neighbour in neighbours), *popular]
            excluded |= await self._select_category(summary, names)
        rows = [
            _also_bought(neighbour.name, neighbour.score, product_name, neighbour.common_buyers)
            for neighbour in neighbours
            if neighbour.name not in excluded
        ][:limit]
        if bestsellers is None:
            return rows
        return _fill_up(rows, limit, [] if complementary else [summary], excluded, bestsellers)

    async def recommend(self, user_id: str, limit: int, *, exclude_purchased: bool = True) -> list[Suggestion]:
        """Return up to `limit` products that a user may like, best first.

        The list is filled up as that of `similar_products`. The score of a product is the sum of
        its similarities to the newest products of the user, and its reason is the most similar of
        these. Raises ClosedPartition.
        """
        purchased = self.purchased_products(user_id)
        excluded = set(purchased) if exclude_purchased else set()
        seeds = {name: summary for name in purchased[:MAX_SEEDS] if (summary := self.read_summary(name)) is not None}
        scores: dict[str, int] = {}
        strongest: dict[str, tuple[Neighbour, str]] = {}
        buyers: dict[str, int] = {}
        for seed, summary in seeds.items():
            for neighbour in await self._read_neighbours(seed, summary, buyers):
                name = neighbour.name
                if name not in excluded:
                    scores[name] = scores.get(name, 0) + neighbour.score
                    if name not in strongest or neighbour.score > strongest[name][0].score:
                        strongest[name] = (neighbour, seed)
        best = nsmallest(limit, scores, key=lambda name: (-scores[name], name))
        rows = [
            _also_bought(name, scores[name], seed, neighbour.common_buyers)
            for name in best
            for neighbour, seed in [strongest[name]]
        ]
        return _fill_up(rows, limit, seeds.values(), excluded, await self._bestsellers.read())

    async def popular_products(self, window: Window, limit: int, excluded: Collection[str] = ()) -> list[Suggestion]:
        """Return up to `limit` products with the most buyers in a window.

        Raises ClosedPartition.
        """
        return _popular(window, limit, excluded, await self._bestsellers.read())

    def purchased_products(self, user_id: str) -> list[str]:
        """Return all products of a user, newest first. Raises ClosedPartition."""
        return self._by_user.product_names(user_id, self._owned.of_key("by_user", user_id))

    def read_summary(self, product_name: str) -> SalesSummary | None:
        """Return the sales of a product; None if it was never bought. Raises ClosedPartition."""
        return self._similar.summaries([product_name], self._owned.of_key("similar", product_name))[0]

    def read_history(self, product_name: str) -> ProductHistory:
        """Return the newest purchases of a product and their counts over time.

        Raises ClosedPartition.
        """
        return self._similar.history(product_name, self._owned.of_key("similar", product_name))

    async def _read_neighbours(
        self, product_name: str, summary: SalesSummary, buyers: dict[str, int]
    ) -> list[Neighbour]:
        """Return the neighbours of a product, in no order; `buyers` is a cache by product."""
        pairs = await self._read_common_buyers(product_name)
        uncached = [name for name, _ in pairs if name not in buyers]
        summaries = await self._read_summaries(uncached)
        buyers |= {name: 0 if other is None else other.buyers for name, other in summaries.items()}
        neighbours = []
        for name, common in pairs:
            # Both products and the pair learn of a new buyer at different times.
            if common > 0:
                similarity = cosine_similarity(common, max(common, summary.buyers), max(common, buyers[name]))
                neighbours.append(Neighbour(round(similarity * SCORE_UNIT), name, common))
        return neighbours

    async def _read_common_buyers(self, product_name: str) -> Ranking:
        """Return the neighbours with the most common buyers, and their number."""
        ranking: Ranking = []
        after: str | None = None
        is_last = False
        while not is_last:
            partition = self._owned.of_key("similar", product_name)
            pairs = self._similar.neighbours(product_name, partition, after, READ_KEYS)
            ranking += pairs
            is_last = len(pairs) < READ_KEYS
            if len(ranking) > 2 * MAX_NEIGHBOURS or is_last:
                ranking = nsmallest(MAX_NEIGHBOURS, ranking, key=lambda pair: (-pair[1], pair[0]))
            after = pairs[-1][0] if pairs else None
            await asyncio.sleep(0)
        return ranking

    async def _read_summaries(self, product_names: list[str]) -> dict[str, SalesSummary | None]:
        summaries: dict[str, SalesSummary | None] = {}
        for first in range(0, len(product_names), READ_KEYS):
            by_partition: dict[int, list[str]] = {}
            for name in product_names[first : first + READ_KEYS]:
                by_partition.setdefault(self._owned.of_key("similar", name), []).append(name)
            for partition, names in by_partition.items():
                summaries |= zip(names, self._similar.summaries(names, partition), strict=True)
            await asyncio.sleep(0)
        return summaries

    async def _select_category(self, summary: SalesSummary, product_names: list[str]) -> set[str]:
        """Return those of the products that have the category of `summary`."""
        if summary.category is None:
            return set()
        category = summary.category[1]
        summaries = await self._read_summaries(product_names)
        return {
            name
            for name, other in summaries.items()
            if other is not None and other.category and other.category[1] == category
        }


def _fill_up(
    rows: list[Suggestion], limit: int, products: Iterable[SalesSummary], excluded: set[str], bestsellers: Bestsellers
) -> list[Suggestion]:
    """Fill `rows` up to `limit`, with bestsellers of the products' categories, then of all."""
    if len(rows) >= limit:
        return rows
    excluded = excluded | {row.product_name for row in rows}
    for category in dict.fromkeys(product.category[1] for product in products if product.category is not None):
        for name, buyers in bestsellers.by_category.get(category, ()):
            if len(rows) < limit and name not in excluded:
                excluded.add(name)
                reason = SuggestionReason("same_category", category=category)
                rows.append(Suggestion(name, buyers, "category", reason))
    return rows + _popular(LONGEST_WINDOW, limit - len(rows), excluded, bestsellers)


def _popular(window: Window, limit: int, excluded: Collection[str], bestsellers: Bestsellers) -> list[Suggestion]:
    rows = (
        Suggestion(name, buyers, "popular", SuggestionReason("popular", window=window))
        for name, buyers in bestsellers.by_window[window]
        if name not in excluded
    )
    return list(islice(rows, limit))


def _also_bought(name: str, score: int, with_: str, common_buyers: int) -> Suggestion:
    reason = SuggestionReason("also_bought", with_=with_, also_bought_by=common_buyers)
    return Suggestion(name, score / SCORE_UNIT, "co-purchase", reason)
