"""Products to show beside another one, or to a user: bought by the same users, else of the same category, else popular.

All of it reads tables of this worker only, and raises ClosedPartition where it does not own all that is needed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable
from heapq import nsmallest
from itertools import islice
from operator import itemgetter
from typing import NamedTuple

from faust.types import TP

from app.core import app, settings
from chunks import ClosedPartition, Table, discard_exception
from domain.co_purchases import SalesSummary, cosine_similarity
from domain.partitioning import partition_of
from domain.product_history import RETENTION_HOURS
from tables import by_user, similar

#: Rows of a list where nothing else is asked for.
DEFAULT_LIMIT = 10
#: The neighbours of a product that are scored: of more, those it shares most users with.
MOST_NEIGHBOURS = 1_000
#: The products of a user that recommendations follow from: those bought last.
SEEDS = 10
#: Keys that are read in one go: some milliseconds of work, after which others get their turn.
AT_ONCE = 500
#: The bestsellers that are looked at, in each window and in each category.
BESTSELLERS = 200
#: Window -> hours.
WINDOWS = {"1h": 1, "24h": 24, "7d": RETENTION_HOURS}
LONGEST = "7d"
#: A look at all products that takes longer is not waited for, unless what was seen last is so old, in seconds.
LONG_S, LATEST_S = 0.05, 60.0

Row = dict[str, object]


#: Scores are counted in millionths, so that sums do not depend on the order in which they are made.
WHOLE = 1_000_000


class Neighbour(NamedTuple):
    """A product that users have together with another one: how alike they are, and how many users have both."""

    score: int
    name: str
    both: int


async def similar_to(
    product_name: str,
    limit: int,
    *,
    for_user: str | None = None,
    complementary: bool = False,
    fallback: bool = True,
) -> list[Row] | None:
    """What goes with a product, best first, at most `limit`; None where nobody ever bought it.

    Never the product itself, nothing that `for_user` has, and if `complementary` nothing of its category. With
    `fallback` the list is filled up with bestsellers of its category, then of all; each row names its source.
    Raises ClosedPartition.
    """
    known = brief(product_name)
    if known is None:
        return None
    without = {product_name, *(() if for_user is None else purchased(for_user))}
    alike = sorted(await neighbours(product_name, known, {}), key=lambda one: (-one.score, one.name))
    best = await bestsellers.fresh() if fallback else None
    if complementary:
        popular_ones = [name for name, _ in best.by_window[LONGEST]] if best else []
        without |= await _of_category(known, [*(one.name for one in alike), *popular_ones])
    rows = [_also_bought(one.name, one.score, product_name, one.both) for one in alike if one.name not in without][
        :limit
    ]
    return _filled(rows, limit, [] if complementary else [known], without, best) if best else rows


async def recommend(user_id: str, limit: int, *, exclude_purchased: bool = True) -> list[Row]:
    """What a user may like, best first, at most `limit`; filled up as `similar_to` does.

    The score is the sum of the likenesses to the products that the user bought last, the reason the strongest of
    them. Raises ClosedPartition.
    """
    had = purchased(user_id)
    without = set(had) if exclude_purchased else set()
    seeds = {name: known for name in had[:SEEDS] if (known := brief(name)) is not None}
    scores: dict[str, int] = {}
    strongest: dict[str, tuple[Neighbour, str]] = {}
    buyers: dict[str, int] = {}
    for seed, known in seeds.items():
        for one in await neighbours(seed, known, buyers):
            if one.name not in without:
                scores[one.name] = scores.get(one.name, 0) + one.score
                if one.name not in strongest or one.score > strongest[one.name][0].score:
                    strongest[one.name] = (one, seed)
    best = nsmallest(limit, scores, key=lambda name: (-scores[name], name))
    rows = [_also_bought(name, scores[name], strongest[name][1], strongest[name][0].both) for name in best]
    return _filled(rows, limit, seeds.values(), without, await bestsellers.fresh())


async def popular(window: str, limit: int, without: Collection[str] = ()) -> list[Row]:
    """What most users bought in one of WINDOWS, at most `limit`. Raises ClosedPartition."""
    return _popular(window, limit, without, await bestsellers.fresh())


def _popular(window: str, limit: int, without: Collection[str], best: Best) -> list[Row]:
    rows = (
        _row(name, buyers, "popular", {"type": "popular", "window": window})
        for name, buyers in best.by_window[window]
        if name not in without
    )
    return list(islice(rows, limit))


def purchased(user_id: str) -> list[str]:
    """All products that a user has, however old, the one bought last first. Raises ClosedPartition."""
    return by_user.products(user_id, owned(by_user.by_user, user_id))


async def neighbours(product_name: str, known: SalesSummary, buyers: dict[str, int]) -> list[Neighbour]:
    """The neighbours of a product, in no order. Raises ClosedPartition.

    `buyers` has what is known already of how many users have which product, and is added to.
    """
    pairs = await _most_shared(product_name)
    unknown = [name for name, _ in pairs if name not in buyers]
    buyers |= {name: 0 if one is None else one.buyers for name, one in (await _briefs(unknown)).items()}
    found = []
    for name, both in pairs:
        # The two and the pair are told of a new buyer one after the other.
        if both > 0:
            score = cosine_similarity(both, max(both, known.buyers), max(both, buyers[name]))
            found.append(Neighbour(round(score * WHOLE), name, both))
    return found


async def _most_shared(product_name: str) -> list[tuple[str, int]]:
    """The neighbours that a product shares most users with, and how many."""
    found: list[tuple[str, int]] = []
    after, more = None, True
    while more:
        page = similar.neighbours(product_name, owned(similar.similar, product_name), after, AT_ONCE)
        found += page
        more = len(page) == AT_ONCE
        if len(found) > 2 * MOST_NEIGHBOURS or not more:
            found = nsmallest(MOST_NEIGHBOURS, found, key=lambda pair: (-pair[1], pair[0]))
        after = page[-1][0] if page else None
        await asyncio.sleep(0)
    return found


def brief(product_name: str) -> SalesSummary | None:
    """What is known of a product; None where nobody ever bought it. Raises ClosedPartition."""
    return similar.briefs([product_name], owned(similar.similar, product_name))[0]


async def _briefs(product_names: list[str]) -> dict[str, SalesSummary | None]:
    """The same of many."""
    found: dict[str, SalesSummary | None] = {}
    for first in range(0, len(product_names), AT_ONCE):
        places: dict[int, list[str]] = {}
        for name in product_names[first : first + AT_ONCE]:
            places.setdefault(owned(similar.similar, name), []).append(name)
        for partition, names in places.items():
            found |= zip(names, similar.briefs(names, partition), strict=True)
        await asyncio.sleep(0)
    return found


class Best(NamedTuple):
    """What sells best, and to how many users, in each window and of each category."""

    by_window: dict[str, list[tuple[str, int]]]
    by_category: dict[str, list[tuple[str, int]]]


class Bestsellers:
    """What sells best, looked up in all tables of this worker: at most once a second, and a twentieth of the time."""

    def __init__(self) -> None:
        self._seen = Best({}, {})
        self._began, self._next, self._long = 0.0, 0.0, False
        self._looking: asyncio.Task[None] | None = None

    async def fresh(self) -> Best:
        """Look again if it is time; where that takes long, what was seen last has to do. Raises ClosedPartition."""
        for partition in range(settings.partitions):
            _demand_owned(similar.similar, partition)
        now = time.monotonic()
        if self._looking is None and now >= self._next:
            self._looking = asyncio.create_task(self._look(now))
            self._looking.add_done_callback(discard_exception)
        if self._looking is not None and not (self._long and now < self._began + LATEST_S):
            await asyncio.shield(self._looking)
        return self._seen

    async def _look(self, began: float) -> None:
        took = 0.0
        hour = similar.now_hour()
        windows: dict[str, list[tuple[str, int]]] = {window: [] for window in WINDOWS}
        categories: dict[str, list[tuple[str, int]]] = {}
        try:
            for partition in range(settings.partitions):
                page, after = [], None
                while after is None or len(page) == AT_ONCE:
                    resumed = time.monotonic()
                    _demand_owned(similar.similar, partition)
                    page = similar.products(partition, after, AT_ONCE)
                    for name, sales in page:
                        for window, buyers in zip(WINDOWS, sales.recent_buyers(WINDOWS.values(), hour), strict=True):
                            if buyers > 0:
                                _add(windows[window], name, buyers)
                        if sales.category is not None and sales.buyers > 0:
                            _add(categories.setdefault(sales.category[1], []), name, sales.buyers)
                    after = page[-1][0] if page else ""
                    took += time.monotonic() - resumed
                    await asyncio.sleep(0)
            self._seen = Best(
                {window: _best(found) for window, found in windows.items()},
                {category: _best(found) for category, found in categories.items()},
            )
            self._began, self._long = began, took > LONG_S
            self._next = time.monotonic() + max(1.0, min(20 * took, LATEST_S / 2))
        finally:
            self._looking = None


bestsellers = Bestsellers()


def _add(found: list[tuple[str, int]], name: str, buyers: int) -> None:
    found.append((name, buyers))
    if len(found) >= 10 * BESTSELLERS:
        found[:] = _best(found)


def _best(found: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return nsmallest(BESTSELLERS, found, key=lambda pair: (-pair[1], pair[0]))


def _filled(rows: list[Row], limit: int, like: Iterable[SalesSummary], without: set[str], best: Best) -> list[Row]:
    """`rows`, filled up to `limit` with bestsellers: of the categories of `like`, then of all."""
    if len(rows) >= limit:
        return rows
    seen = without | set(map(itemgetter("product_name"), rows))
    for category in dict.fromkeys(one.category[1] for one in like if one.category is not None):
        for name, buyers in best.by_category.get(category, ()):
            if len(rows) < limit and name not in seen:
                seen.add(name)
                rows.append(_row(name, buyers, "category", {"type": "same_category", "category": category}))
    return rows + _popular(LONGEST, limit - len(rows), seen, best)


def _also_bought(name: str, score: int, with_: str, both: int) -> Row:
    return _row(name, score / WHOLE, "co-purchase", {"type": "also_bought", "with": with_, "also_bought_by": both})


def _row(name: str, score: float, source: str, reason: dict[str, object]) -> Row:
    return {"product_name": name, "score": score, "source": source, "reason": reason}


async def _of_category(known: SalesSummary, product_names: list[str]) -> set[str]:
    """Those of the products that are of the category of a product."""
    if known.category is None:
        return set()
    others = (await _briefs(product_names)).items()
    return {name for name, one in others if one is not None and one.category and one.category[1] == known.category[1]}


def owned(table: Table, key: str) -> int:
    """The partition of a key, if it is this worker's. Raises ClosedPartition."""
    partition = partition_of(key.encode(), settings.partitions)
    _demand_owned(table, partition)
    return partition


def _demand_owned(table: Table, partition: int) -> None:
    # A standby is open too, but it may be far behind.
    if not app.assignor.is_active(TP(table.changelog, partition)):
        raise ClosedPartition(f"partition {partition} of {table.name} is not owned here")
