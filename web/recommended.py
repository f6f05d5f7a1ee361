"""Products to show beside another one, or to a user: bought by the same users, else of the same category, else popular.

All of it reads tables of this worker only, and raises ClosedPartition where it does not own all that is needed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from heapq import nsmallest
from operator import itemgetter
from typing import NamedTuple

from faust.types import TP

from app.co_purchases import HOURS_KEPT, Sales, cosine
from app.core import app, settings
from app.topics import partition_of
from chunks import ClosedPartition
from chunks.table import Table
from tables import by_user, similar

#: The neighbours of a product that are scored: of more, those it shares most users with.
MOST_NEIGHBOURS = 1_000
#: The products of a user that recommendations follow from: those bought last.
SEEDS = 10
#: The bestsellers that are looked at, in each window and in each category.
BESTSELLERS = 200
#: Window -> hours.
WINDOWS = {"1h": 1, "24h": 24, "7d": HOURS_KEPT}
LONGEST = "7d"

Row = dict[str, object]


class Neighbour(NamedTuple):
    """A product that users have together with another one: how alike they are, and how many users have both."""

    score: float
    name: str
    both: int


def similar_to(
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
    known = _sales(product_name)
    if known is None:
        return None
    without = {product_name, *(() if for_user is None else purchased(for_user))}
    rows = [
        _also_bought(one.name, one.score, product_name, one.both)
        for one in neighbours(product_name, known)
        if one.name not in without and not (complementary and _same_category(one.name, known))
    ][:limit]
    if not fallback:
        return rows
    if not complementary:
        return _filled(rows, limit, [known], without)
    others = {name for name, _ in bestsellers.fresh().by_window[LONGEST] if _same_category(name, known)}
    return _filled(rows, limit, [], without | others)


def recommend(user_id: str, limit: int, *, exclude_purchased: bool = True) -> list[Row]:
    """What a user may like, best first, at most `limit`; filled up as `similar_to` does.

    The score is the sum of the likenesses to the products that the user bought last, the reason the strongest of
    them. Raises ClosedPartition.
    """
    owned = purchased(user_id)
    without = set(owned) if exclude_purchased else set()
    seeds = {name: sales for name in owned[:SEEDS] if (sales := _sales(name)) is not None}
    scores: dict[str, float] = {}
    strongest: dict[str, tuple[Neighbour, str]] = {}
    for seed, sales in seeds.items():
        for one in neighbours(seed, sales):
            if one.name not in without:
                scores[one.name] = scores.get(one.name, 0.0) + one.score
                if one.name not in strongest or one.score > strongest[one.name][0].score:
                    strongest[one.name] = (one, seed)
    best = nsmallest(limit, scores, key=lambda name: (-scores[name], name))
    rows = [_also_bought(name, scores[name], strongest[name][1], strongest[name][0].both) for name in best]
    return _filled(rows, limit, seeds.values(), without)


def popular(window: str, limit: int, without: Collection[str] = ()) -> list[Row]:
    """What most users bought in one of WINDOWS, at most `limit`. Raises ClosedPartition."""
    rows = (
        _row(name, buyers, "popular", {"type": "popular", "window": window})
        for name, buyers in bestsellers.fresh().by_window[window]
        if name not in without
    )
    return [row for row, _ in zip(rows, range(limit), strict=False)]


def purchased(user_id: str) -> list[str]:
    """All products that a user has, however old, the one bought last first. Raises ClosedPartition."""
    return by_user.products(user_id, owned(by_user.by_user, user_id))


def neighbours(product_name: str, known: Sales) -> list[Neighbour]:
    """The neighbours of a product, the likest first, then by name. Raises ClosedPartition."""
    pairs = similar.neighbours(product_name, owned(similar.similar, product_name))
    found = []
    for name, both in nsmallest(MOST_NEIGHBOURS, pairs, key=lambda pair: (-pair[1], pair[0])):
        # The two and the pair are told of a new buyer one after the other.
        buyers = max(both, (_sales(name) or Sales()).buyers)
        if both > 0:
            found.append(Neighbour(round(cosine(both, max(both, known.buyers), buyers), 6), name, both))
    return sorted(found, key=lambda one: (-one.score, one.name))


class Bestsellers:
    """What sells best, looked up in all tables of this worker: at most once a second, and a twentieth of the time."""

    def __init__(self) -> None:
        self.by_window: dict[str, list[tuple[str, int]]] = {}
        self.by_category: dict[str, list[tuple[str, int]]] = {}
        self._next = 0.0

    def fresh(self) -> Bestsellers:
        """Look again if it is time. Raises ClosedPartition."""
        for partition in range(settings.partitions):
            _demand_owned(similar.similar, partition)
        began = time.monotonic()
        if began >= self._next:
            self._look()
            ended = time.monotonic()
            self._next = ended + max(1.0, 20 * (ended - began))
        return self

    def _look(self) -> None:
        hour = similar.now_hour()
        windows: dict[str, list[tuple[str, int]]] = {window: [] for window in WINDOWS}
        categories: dict[str, list[tuple[str, int]]] = {}
        for partition in range(settings.partitions):
            for name, sales in similar.everything(partition):
                for window, hours in WINDOWS.items():
                    if (buyers := sales.lately(hours, hour)) > 0:
                        _add(windows[window], name, buyers)
                if sales.category is not None and sales.buyers > 0:
                    _add(categories.setdefault(sales.category[1], []), name, sales.buyers)
        self.by_window = {window: _best(found) for window, found in windows.items()}
        self.by_category = {category: _best(found) for category, found in categories.items()}


bestsellers = Bestsellers()


def _add(found: list[tuple[str, int]], name: str, buyers: int) -> None:
    found.append((name, buyers))
    if len(found) >= 10 * BESTSELLERS:
        found[:] = _best(found)


def _best(found: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return nsmallest(BESTSELLERS, found, key=lambda pair: (-pair[1], pair[0]))


def _filled(rows: list[Row], limit: int, like: Iterable[Sales], without: set[str]) -> list[Row]:
    """`rows`, filled up to `limit` with bestsellers: of the categories of `like`, then of all."""
    if len(rows) >= limit:
        return rows
    seen = without | set(map(itemgetter("product_name"), rows))
    best = bestsellers.fresh()
    for category in dict.fromkeys(one.category[1] for one in like if one.category is not None):
        for name, buyers in best.by_category.get(category, ()):
            if len(rows) < limit and name not in seen:
                seen.add(name)
                rows.append(_row(name, buyers, "category", {"type": "same_category", "category": category}))
    return rows + popular(LONGEST, limit - len(rows), seen)


def _also_bought(name: str, score: float, with_: str, both: int) -> Row:
    return _row(name, score, "co-purchase", {"type": "also_bought", "with": with_, "also_bought_by": both})


def _row(name: str, score: float, source: str, reason: dict[str, object]) -> Row:
    return {"product_name": name, "score": score, "source": source, "reason": reason}


def _same_category(product_name: str, known: Sales) -> bool:
    other = _sales(product_name)
    if other is None or other.category is None or known.category is None:
        return False
    return other.category[1] == known.category[1]


def _sales(product_name: str) -> Sales | None:
    return similar.sales(product_name, owned(similar.similar, product_name))


def owned(table: Table, key: str) -> int:
    """The partition of a key, if it is this worker's. Raises ClosedPartition."""
    partition = partition_of(key.encode(), settings.partitions)
    _demand_owned(table, partition)
    return partition


def _demand_owned(table: Table, partition: int) -> None:
    # A standby is open too, but it may be far behind.
    if not app.assignor.is_active(TP(table.changelog, partition)):
        raise ClosedPartition(f"partition {partition} of {table.name} is not owned here")
