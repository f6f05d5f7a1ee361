"""The bestsellers are those of a sort of all products, also while products change during a scan."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.co_purchases import ProductSales, encode_extract
from tables.product_sales import SalesCopy
from web import bestsellers
from web.bestsellers import MAX_BESTSELLERS, BestsellerScan

HOUR = 500_000
#: Window -> how many hours before the current one count.
AGES = {"1h": 1, "24h": 24, "7d": 168}
#: Name, buyers, category, and users by the hour of their last purchase.
Product = tuple[str, int, "str | None", dict[int, int]]


class Clock:
    """In place of the module time."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, which stands still; a scan yields to others after each part."""
    clock = Clock()
    monkeypatch.setattr(bestsellers, "time", clock)
    monkeypatch.setattr(bestsellers, "current_hour", lambda: HOUR)
    monkeypatch.setattr(bestsellers, "SLICE_S", -1)
    return clock


def store(sales: SalesCopy, *products: Product) -> None:
    rows = []
    for name, buyers, category, hours in products:
        value = encode_extract(ProductSales(1, buyers, None if category is None else (0, category), hours))
        rows.append((name.encode(), value))
    sales.apply(0, rows)


def rank(counts: dict[str, int]) -> list[tuple[str, int]]:
    """The bestsellers of a brute-force sort."""
    ranked = sorted(((-count, name) for name, count in counts.items() if count > 0))
    return [(name, -count) for count, name in ranked[:200]]


def rank_window(products: Sequence[Product], window: str) -> list[tuple[str, int]]:
    """The bestsellers of a window; purchases more than a day ahead do not count."""
    first, last = HOUR - AGES[window], HOUR + 24
    return rank({name: sum(n for hour, n in hours.items() if first <= hour <= last) for name, _, _, hours in products})


def assert_equal_to_a_sort(found: bestsellers.Bestsellers, products: Sequence[Product]) -> None:
    assert {window: [*ranking] for window, ranking in found.by_window.items()} == {
        window: rank_window(products, window) for window in AGES
    }
    categories = {category for _, buyers, category, _ in products if category is not None and buyers > 0}
    assert found.by_category == {
        category: rank({name: buyers for name, buyers, other, _ in products if other == category})
        for category in categories
    }


HOURS = st.dictionaries(
    st.sampled_from([HOUR - age for age in (-25, -24, -3, 0, 1, 2, 24, 25, 168, 169, 400)]),
    st.integers(-2, 4),
    max_size=5,
)
PRODUCTS = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3),
        st.integers(-1, 4),
        st.sampled_from([None, "a", "b"]),
        HOURS,
    ),
    max_size=30,
    unique_by=lambda product: product[0],
)


@given(PRODUCTS)
def test_the_bestsellers_are_those_of_a_sort_of_all_products(products: list[Product]):
    sales = SalesCopy(1)
    store(sales, *products)
    assert_equal_to_a_sort(asyncio.run(BestsellerScan(sales).read()), products)


def some_products(number: int) -> list[Product]:
    dice = random.Random(7)
    return [
        (f"p{n}", dice.randrange(30), dice.choice(["a", "b", None]), {HOUR - dice.randrange(200): dice.randrange(1, 9)})
        for n in range(number)
    ]


def test_of_many_products_exactly_the_best_200_are_kept():
    products = some_products(9_000)
    sales = SalesCopy(1)
    store(sales, *products)
    found = asyncio.run(BestsellerScan(sales).read())
    assert_equal_to_a_sort(found, products)
    assert len(found.by_window["7d"]) == len(found.by_category["a"]) == MAX_BESTSELLERS


def test_a_product_that_changes_during_a_scan_counts_as_before_or_as_after_and_all_others_exactly():
    products = some_products(140)
    changed = [(f"{name} 2", *rest) for name, *rest in products[:30]]
    sales = SalesCopy(2)
    store(sales, *products)

    async def scan() -> bestsellers.Bestsellers:
        task = asyncio.create_task(BestsellerScan(sales).read())
        steps = 0
        while not task.done():
            steps += 1
            if steps == 20:
                # Some products vanish and some appear; the partition is not written anew.
                sales.apply(0, [(name.encode(), None) for name, *_ in products[30:60]])
                store(sales, *changed)
            await asyncio.sleep(0)
        assert steps > 100, "the scan let others run"
        return await task

    found = asyncio.run(scan())
    for window in AGES:
        counts = dict(found.by_window[window])
        assert len(counts) == len(found.by_window[window])
        possible = dict(rank_window([*products, *changed], window))
        assert counts.items() <= possible.items()
        certain = {name for name, *_ in [*products[:30], *products[60:]]}
        assert {name: n for name, n in possible.items() if name in certain}.items() <= counts.items()


def test_rows_of_a_partition_that_is_written_anew_during_a_scan_are_those_of_before_or_of_after():
    sales = SalesCopy(1)
    store(sales, *((f"old {n}", 1, None, {HOUR: 1}) for n in range(100)))

    async def scan() -> bestsellers.Bestsellers:
        task = asyncio.create_task(BestsellerScan(sales).read())
        for _ in range(20):
            await asyncio.sleep(0)
        sales.begin(0)
        store(sales, *((f"new {n}", 1, None, {HOUR: 1}) for n in range(100)))
        sales.complete(0)
        return await task

    names = {name for name, _ in asyncio.run(scan()).by_window["1h"]}
    assert names <= {f"{age} {n}" for age in ("old", "new") for n in range(100)}
    assert any(name.startswith("new") for name in names)


def test_requests_share_a_scan_and_the_next_scan_begins_a_second_later(clock: Clock):
    sales = SalesCopy(1)
    scan = BestsellerScan(sales)

    async def read() -> list[int]:
        answers = await asyncio.gather(*(scan.read() for _ in range(5)))
        assert len({id(answer) for answer in answers}) == 1
        return [buyers for _, buyers in answers[0].by_window["1h"]]

    async def run() -> None:
        assert await read() == []
        store(sales, ("Phone", 1, None, {HOUR: 1}))
        assert await read() == []
        clock.now += 1.1
        assert await read() == [1]

    asyncio.run(run())


def test_a_request_that_ends_during_a_scan_does_not_end_the_scan_of_the_others():
    sales = SalesCopy(1)
    store(sales, ("Phone", 1, None, {HOUR: 1}))
    scan = BestsellerScan(sales)

    async def run() -> None:
        first, second = asyncio.create_task(scan.read()), asyncio.create_task(scan.read())
        await asyncio.sleep(0)
        first.cancel()
        assert dict((await second).by_window["1h"]) == {"Phone": 1}
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(run())
