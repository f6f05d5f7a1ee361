"""Lists of products for a product or a user.

A list contains products with common buyers, then bestsellers of the same category, then of all
categories. The sales of all products are in the memory of each worker; the neighbours of a product
are read from the worker that owns it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from heapq import nlargest, nsmallest
from itertools import islice
from typing import NamedTuple

from aiohttp.web import Request

from domain.co_purchases import SCORE_UNIT, score_neighbours
from tables.product_sales import ProductRow, SalesCopy
from web.bestsellers import LONGEST_WINDOW, Bestsellers, BestsellerScan
from web.common_buyers import CommonBuyersReader
from web.routing import NotServed
from web.schemas import CommonBuyers, Role, Suggestion, SuggestionReason, Window

#: Rows of a list if the request has no limit.
DEFAULT_LIMIT = 10
#: The products of a user that the recommendations are derived from: the newest ones.
MAX_SEEDS = 10


class ProductList(NamedTuple):
    """A list of products, best first.

    `role` is "standby" if some neighbours were read from a copy. `problem` is the reason why the
    neighbours of some product are missing; None: the list is whole.
    """

    rows: list[Suggestion]
    role: Role = "active"
    problem: NotServed | None = None

    def with_purchases_from(self, role: Role) -> ProductList:
        """Return the list with the role of the user's purchases, if these were not read from the owner."""
        return self if role == "active" else self._replace(role=role)


class Recommender:
    """Builds the lists of products."""

    def __init__(self, sales: SalesCopy, common_buyers: CommonBuyersReader) -> None:
        self._sales, self._common_buyers = sales, common_buyers
        self._bestsellers = BestsellerScan(sales)

    def has_sales(self, product_name: str) -> bool:
        """Return whether a product was ever bought."""
        return self._sales.get(product_name) is not None

    async def similar_products(
        self,
        request: Request,
        product_name: str,
        limit: int,
        *,
        excluded: Collection[str] = (),
        complementary: bool = False,
        fallback: bool = True,
    ) -> ProductList:
        """Return up to `limit` products that have buyers in common with a product, best first.

        The list contains neither the product nor those of `excluded`, and with `complementary` no
        product of its category. With `fallback` it is filled up with bestsellers of its category,
        then of all categories.
        """
        product = self._sales.get(product_name)
        results = await self._common_buyers.read(request, [product_name])
        scores = self._score(product, results[product_name])
        bestsellers = await self._bestsellers.read() if fallback else None
        left_out = {product_name, *excluded}
        if complementary and product is not None and product.category is not None:
            popular = [name for name, _ in bestsellers.by_window[LONGEST_WINDOW]] if bestsellers else []
            left_out |= {name for name in (*scores, *popular) if self._category(name) == product.category}
        rows = [
            _also_bought(name, scores[name], product_name, results[product_name])
            for name in _best(scores, limit, left_out)
        ]
        if bestsellers is not None:
            categories = [] if complementary or product is None else [product.category]
            rows = _fill_up(rows, limit, categories, left_out, bestsellers)
        return ProductList(rows, *_origin(results.values()))

    async def recommend(
        self, request: Request, purchased: list[str], limit: int, *, exclude_purchased: bool = True
    ) -> ProductList:
        """Return up to `limit` products that a user may like, best first.

        `purchased` are the user's products, newest first. The list is filled up as that of
        `similar_products`. The score of a product is the sum of its similarities to the newest
        products of the user, and its reason is the most similar of these.
        """
        excluded = set(purchased) if exclude_purchased else set()
        seeds = {name: row for name in purchased[:MAX_SEEDS] if (row := self._sales.get(name)) is not None}
        results = await self._common_buyers.read(request, seeds) if seeds else {}
        by_seed: dict[str, dict[str, int]] = {}
        scores: dict[str, int] = {}
        get = scores.get
        for seed, row in seeds.items():
            by_seed[seed] = self._score(row, results[seed])
            for name, score in by_seed[seed].items():
                scores[name] = get(name, 0) + score
            await asyncio.sleep(0)  # a product with many neighbours takes milliseconds
        rows = [
            _also_bought(name, scores[name], seed, results[seed])
            for name in _best(scores, limit, excluded)
            for seed in [max(by_seed, key=lambda seed: by_seed[seed].get(name, -1))]
        ]
        categories = [row.category for row in seeds.values()]
        rows = _fill_up(rows, limit, categories, excluded, await self._bestsellers.read())
        return ProductList(rows, *_origin(results.values()))

    async def popular_products(self, window: Window, limit: int, excluded: Collection[str] = ()) -> ProductList:
        """Return up to `limit` products with the most buyers in a window."""
        return ProductList(_popular(window, limit, excluded, await self._bestsellers.read()))

    def _score(self, product: ProductRow | None, result: CommonBuyers | NotServed) -> dict[str, int]:
        """Return the neighbours of a product with their similarity, in SCORE_UNIT."""
        if isinstance(result, NotServed):
            return {}
        buyers = self._sales.count_buyers(result.neighbours)
        return score_neighbours(result.neighbours, buyers, 0 if product is None else product.buyers)

    def _category(self, product_name: str) -> str | None:
        row = self._sales.get(product_name)
        return None if row is None else row.category


def _origin(results: Collection[CommonBuyers | NotServed]) -> tuple[Role, NotServed | None]:
    """Return the role of a list of products, and the reason if neighbours are missing."""
    problem = next((product for product in results if isinstance(product, NotServed)), None)
    are_active = all(isinstance(product, NotServed) or product.role == "active" for product in results)
    return "active" if are_active else "standby", problem


def _fill_up(
    rows: list[Suggestion],
    limit: int,
    categories: Iterable[str | None],
    excluded: set[str],
    bestsellers: Bestsellers,
) -> list[Suggestion]:
    """Fill `rows` up to `limit`, with bestsellers of the categories, then of all."""
    if len(rows) >= limit:
        return rows
    excluded = excluded | {row.product_name for row in rows}
    for category in dict.fromkeys(category for category in categories if category is not None):
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


def _best(scores: dict[str, int], limit: int, excluded: set[str]) -> list[str]:
    """Return the names of the products with the highest scores, of equal scores by name."""
    # The lowest score that can be in the list, as there are so many others that are not in it.
    lowest = min(nlargest(limit + len(excluded), scores.values()), default=0)
    names = [name for name, score in scores.items() if score >= lowest and name not in excluded]
    return nsmallest(limit, names, key=lambda name: (-scores[name], name))


def _also_bought(name: str, score: int, with_: str, result: CommonBuyers | NotServed) -> Suggestion:
    assert isinstance(result, CommonBuyers), "a product without neighbours has no scores"
    reason = SuggestionReason("also_bought", with_=with_, also_bought_by=result.neighbours[name])
    return Suggestion(name, score / SCORE_UNIT, "co-purchase", reason)
