"""Co-purchases do not depend on the split of changes or the order of deltas."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import combinations, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain import co_purchases
from domain.co_purchases import (
    CATEGORY_DAYS,
    CHANGES_PER_RECORD,
    MAX_CATEGORIES,
    RECORD_BYTES,
    SCORE_UNIT,
    BasketOverflow,
    CategoryCounts,
    DeltaAccumulator,
    ProductDelta,
    ProductSales,
    add_pair_count,
    apply_changes,
    count_recent_buyers,
    decode_changes,
    decode_delta,
    decode_extract,
    decode_pair_count,
    decode_sales,
    encode_changes,
    encode_extract,
    encode_sales,
    score_neighbours,
)
from domain.codec import encode
from domain.errors import UnknownFormat
from domain.events import CHANGED, PLACED, REMOVED
from domain.purchases import PurchaseChange, apply_event
from domain.values import DAY_US, HOUR_US
from tests.kit.makers import at, event

# Small limits, so that examples reach them: the basket has three products, the value five.
CAP, SPARE = 3, 2
USERS = ["ann", "bob", "eve"]
PRODUCTS = [f"p{number}" for number in range(9)]
NOW = 100


def apply_delta(value: bytes | None, delta: ProductDelta, now_hour: int) -> bytes:
    """Add a delta to a value of the table similar."""
    return encode_sales(co_purchases.apply_delta(value, delta, now_hour))


def recent_buyers(value: bytes, windows: list[int], now_hour: int) -> list[int]:
    """The buyers of a product in some windows."""
    return count_recent_buyers(decode_sales(value).hours, windows, now_hour)


Bought = dict[tuple[str, str], Counter]


@st.composite
def histories(draw: st.DrawFn) -> list[PurchaseChange]:
    """Purchases, and removals of existing purchases, in a possible order."""
    changes: list[PurchaseChange] = []
    live_purchases: list[tuple] = []
    for _ in range(draw(st.integers(0, 40))):
        if live_purchases and draw(st.booleans()):
            changes.append((*live_purchases.pop(draw(st.integers(0, len(live_purchases) - 1))), -1))
        else:
            hour = draw(st.integers(NOW - 20, NOW))
            purchase = (
                draw(st.sampled_from(USERS)),
                draw(st.sampled_from(PRODUCTS)),
                draw(st.sampled_from([None, "a", "b"])),
            )
            live_purchases.append((*purchase, hour * HOUR_US, "1.00"))
            changes.append((*live_purchases[-1], 1))
    return changes


class Baskets:
    """The table of baskets in two dicts."""

    def __init__(self, cap: int = CAP, spare: int = SPARE) -> None:
        self.limits = (cap, spare)
        self.values: dict[str, bytes | None] = {}
        self.overflow: defaultdict[str, dict[str, bytes]] = defaultdict(dict)

    def step(self, changes: list[PurchaseChange]) -> list[tuple[str, bytes]]:
        """Apply changes, and return the resulting records."""
        deltas = DeltaAccumulator()
        deltas.add_changes(changes)
        for user in dict.fromkeys(change[0] for change in changes):
            mine = [change for change in changes if change[0] == user]
            self.values[user], before, after = apply_changes(
                self.values.get(user), mine, self._overflow(user), *self.limits
            )
            deltas.add_basket_change(before, after)
        return list(deltas.drain_records())

    def _overflow(self, user: str) -> BasketOverflow:
        overflow = self.overflow[user]

        def put(product: str, value: bytes | None) -> None:
            if value is None:
                overflow.pop(product, None)
            else:
                overflow[product] = value

        return BasketOverflow(overflow.get, put, lambda: list(overflow.items()))


def state(records: list[tuple[str, bytes]]) -> tuple[dict[str, ProductSales], dict[tuple[str, str], int]]:
    """Return the table similar after these records: products and pairs."""
    products: dict[str, bytes] = {}
    pairs: dict[tuple[str, str], bytes | None] = {}
    for product, record in records:
        delta = decode_delta(record)
        products[product] = apply_delta(products.get(product), delta, NOW)
        for other, count in delta.neighbours.items():
            pairs[product, other] = add_pair_count(pairs.get((product, other)), count)
    return (
        {product: decode_sales(value) for product, value in products.items()},
        {pair: decode_pair_count(value) for pair, value in pairs.items() if value is not None},
    )


def expected_baskets(changes: list[PurchaseChange], cap: int = CAP) -> dict[str, dict[str, int]]:
    """Return user -> products of the basket with their hour, by a simple computation."""
    lines: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for user, product, _category, ordered_at, _price, sign in changes:
        count, last = lines[user].get(product, (0, ordered_at))
        lines[user][product] = (count + sign, max(last, ordered_at))
        if not count + sign:
            del lines[user][product]
    return {
        user: {
            name: mine[name][1] // HOUR_US
            for name in sorted(mine, key=lambda name: (mine[name][1], name), reverse=True)[:cap]
        }
        for user, mine in lines.items()
    }


def assert_equals_baskets(
    state: tuple[dict[str, ProductSales], dict[tuple[str, str], int]], baskets: dict[str, dict[str, int]]
) -> None:
    products, pairs = state
    expected = Counter(
        pair
        for mine in baskets.values()
        for product, other in combinations(mine, 2)
        for pair in ((product, other), (other, product))
    )
    assert pairs == dict(expected)
    hours: dict[str, Counter] = defaultdict(Counter)
    for mine in baskets.values():
        for product, hour in mine.items():
            hours[product][hour] += 1
    assert {name: sales.hours for name, sales in products.items() if sales.hours} == dict(hours)
    assert {name: sales.buyers for name, sales in products.items() if sales.buyers} == {
        name: mine.total() for name, mine in hours.items()
    }


def split(changes: list[PurchaseChange], cuts: list[int]) -> list[list[PurchaseChange]]:
    edges = [0, *sorted(cut % (len(changes) + 1) for cut in cuts), len(changes)]
    return [changes[first:last] for first, last in pairwise(edges)]


@given(histories(), st.lists(st.integers(0, 100), max_size=12), st.randoms(use_true_random=False))
def test_however_changes_are_split_and_deltas_are_ordered_the_counts_are_those_of_the_baskets(history, cuts, dice):
    table = Baskets()
    records = [record for part in split(history, cuts) for record in table.step(part)]
    in_order = state(records)
    dice.shuffle(records)

    assert_equals_baskets(in_order, expected_baskets(history))
    assert state(records) == in_order


@given(histories())
def test_what_is_bought_and_taken_back_leaves_nothing(history):
    table, live_purchases = Baskets(), Counter()
    for *purchase, sign in history:
        live_purchases[tuple(purchase)] += sign
    back = [(*purchase, -1) for purchase, count in live_purchases.items() for _ in range(count)]
    products, pairs = state([*table.step(history), *table.step(back)])

    assert pairs == {}
    assert all(not sales.buyers and not sales.hours for sales in products.values())
    assert not any(table.values.values())
    assert not any(table.overflow.values())


@given(histories(), st.integers(NOW - 20, NOW))
def test_a_purchase_that_moves_in_time_or_category_leaves_the_counts_as_they_were(history, hour):
    moves = []
    for user, product, category, ordered_at, price, sign in history:
        if sign > 0 and (user, product, category, ordered_at, price, -1) not in history:
            moves += [(user, product, category, ordered_at, price, -1), (user, product, "c", hour * HOUR_US, price, 1)]
    before, after = state(Baskets(100).step(history)), state(Baskets(100).step(history + moves))

    assert after[1] == before[1]
    assert {name: sales.buyers for name, sales in after[0].items()} == {
        name: sales.buyers for name, sales in before[0].items()
    }


def test_what_was_never_bought_is_not_taken_back():
    table = Baskets()
    products, pairs = state(table.step([("ann", "tea", None, 0, "1.00", -1)]))
    assert (products["tea"].buyers, products["tea"].hours, pairs) == (0, {}, {})
    assert table.values == {"ann": None}


def test_a_category_is_the_one_of_the_newest_day():
    table = Baskets()
    changes = [
        ("ann", "tea", None, 9, "1.00", 1), ("ann", "tea", "new", 5, "1.00", 1), ("bob", "tea", "old", 4, "1.00", 1)
    ]  # fmt: skip
    for order in (changes, changes[::-1]):
        products, _ = state([record for change in order for record in table.step([change])])
        assert products["tea"].category == (0, "new"), "of two that were named as often on a day the first"
    changes += [("eve", "tea", "old", 3, "1.00", 1)]
    products, _ = state(Baskets().step(changes))
    assert products["tea"].category == (0, "old"), "that of more on the day"


def expected_category(purchases: Counter, last: int) -> str | None:
    """Return the category of purchases by category and day, by a simple computation."""
    days = [(day <= last, day if day <= last else -day, n, name) for (name, day), n in purchases.items() if n]
    newest = max((day[:2] for day in days), default=None)
    return min(((-n, name) for *day, n, name in days if tuple(day) == newest), default=(0, None))[1]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-3, 12), st.booleans()), max_size=40), st.integers(1, 5))
def test_the_category_is_that_of_the_newest_purchases_that_are_left(steps, size):
    purchases: Counter = Counter()
    value, deltas, changes = None, DeltaAccumulator(), []
    for name, day, bought in steps:
        if not bought and not purchases[name, day]:
            continue
        sign = 1 if bought else -1
        purchases[name, day] += sign
        changes.append(("ann", "tea", name, day * DAY_US + 1, "1.00", sign))
    for first in range(0, len(changes), size):
        deltas.add_changes(changes[first : first + size])
        for _, record in deltas.drain_records():
            value = apply_delta(value, decode_delta(record), 5 * 24)
    sales = decode_sales(value)
    assert (sales.category and sales.category[1]) == expected_category(purchases, 6)
    assert decode_extract(encode_extract(sales)) == (0, sales.category and sales.category[1], {})


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=40))
def test_days_of_a_category_are_bounded_and_no_purchase_is_forgotten(steps):
    purchases: Counter = Counter()
    counts = CategoryCounts()
    for day, bought in steps:
        if bought or purchases[day]:
            purchases[day] += 1 if bought else -1
            counts = counts.add_days({day: 1 if bought else -1}, max_days=3)
    assert len(counts.days) <= 3
    assert sum(counts.days.values()) + counts.older == purchases.total()
    for day, count in counts.days.items():
        assert count == purchases[day]
    assert (counts.newest_day(99) is None) == (not purchases.total())


def test_what_is_dated_ahead_comes_after_all_others_also_after_older_ones():
    day_counts = {1: 1, **dict.fromkeys(range(50, 50 + CATEGORY_DAYS), 1)}
    ahead = apply_delta(None, ProductDelta(categories={"ahead": day_counts}), NOW)
    assert decode_sales(apply_delta(ahead, ProductDelta(categories={"other": {0: 1}}), NOW)).category == (
        1 * DAY_US,
        "ahead",
    )
    only_ahead = apply_delta(None, ProductDelta(categories={"ahead": {50: 1}}), NOW)
    assert decode_sales(apply_delta(only_ahead, ProductDelta(categories={"other": {0: 1}}), NOW)).category == (
        0,
        "other",
    )


def test_the_categories_of_a_product_are_bounded_and_the_newest_is_among_them():
    value = None
    for number in range(100):
        value = apply_delta(value, ProductDelta(categories={f"c{number}": {number % 5: 1}}), NOW)
    sales = decode_sales(value)
    assert len(sales.categories) == MAX_CATEGORIES
    assert sales.category[0] == 4 * DAY_US


def test_a_category_that_a_version_of_before_knew_counts_until_it_is_told_otherwise():
    before = encode((1, 2, (3 * DAY_US, "old"), {}))
    removed = apply_delta(
        apply_delta(before, ProductDelta(buyers=-1), NOW), ProductDelta(categories={"old": {3: -1}}), NOW
    )
    assert decode_sales(removed).category[1] == "old", "there are others"
    moved = ProductDelta(categories={"old": {3: -1}, "new": {3: 1}})
    assert decode_sales(apply_delta(before, moved, NOW)).category == (3 * DAY_US, "new")
    old_delta = encode((1, {}, 0, (4 * DAY_US, "other")))
    assert decode_sales(apply_delta(before, decode_delta(old_delta), NOW)).category == (4 * DAY_US, "other")


@pytest.mark.parametrize(
    ("hour", "is_recent"), [(NOW - 168, True), (NOW - 169, False), (NOW + 24, True), (NOW + 25, False)]
)
def test_only_recent_hours_are_counted(hour: int, is_recent: bool):
    sales = decode_sales(apply_delta(None, ProductDelta(hours={hour: 2}), NOW))
    assert count_recent_buyers(sales.hours, (1, 168), NOW) == [
        2 if hour >= NOW - 1 and is_recent else 0,
        2 if is_recent else 0,
    ]


def test_an_hour_ahead_counts_when_it_has_come_and_what_was_dated_there_before_can_be_taken_back():
    value = apply_delta(None, ProductDelta(hours={NOW + 48: 1}), NOW)
    assert recent_buyers(value, [168], NOW) == [0]
    assert recent_buyers(value, [1], NOW + 48) == [1]
    value = apply_delta(value, ProductDelta(hours={NOW + 48: 5}), NOW + 48)
    value = apply_delta(value, ProductDelta(hours={NOW + 48: -1}), NOW + 48)
    assert recent_buyers(value, [1], NOW + 48) == [5]


@given(st.lists(st.tuples(st.sampled_from(["u", "é" * 64]), st.sampled_from(["x", "\U0001f600" * 1024])), max_size=900))
def test_changes_go_into_records_that_kafka_takes(pairs):
    changes = [(user, product, None, number, "1.00", 1) for number, (user, product) in enumerate(pairs)]
    records = list(encode_changes(changes))
    assert [change for record in records for change in decode_changes(record)] == changes
    assert all(len(record) <= RECORD_BYTES for record in records)
    assert all(len(decode_changes(record)) <= CHANGES_PER_RECORD for record in records)


def test_a_product_with_many_neighbours_of_long_names_is_told_in_records_that_kafka_takes():
    deltas = DeltaAccumulator()
    names = [f"{number:04}" + "\U0001f600" * 1020 for number in range(1_500)]
    deltas.add_basket_change({}, dict.fromkeys(["tea", *names[:2]], 1))
    deltas["tea"].neighbours = Counter(names)
    records = [record for product, record in deltas.drain_records() if product == "tea"]
    assert all(len(record) < RECORD_BYTES + 10_000 for record in records)
    assert sum((Counter(decode_delta(record).neighbours) for record in records), Counter()) == Counter(names)
    assert [decode_delta(record).buyers for record in records] == [1] + [0] * (len(records) - 1)


def test_the_example_of_the_protocol():
    assert score_neighbours({"Case": 8, "Cable": 10}, [8, 100], 10) == {"Case": 894_427, "Cable": 316_228}


@given(st.integers(1, 50), st.integers(0, 100), st.integers(0, 100))
@example(3, 3, 3)
@example(3, 0, 2)
def test_a_score_is_above_zero_and_at_most_one(both: int, buyers: int, others: int):
    scores = score_neighbours({"Case": both, "Cable": 0, "Lamp": -1}, [others, 5, 5], buyers)
    exact = both / math.sqrt(max(both, buyers) * max(both, others)) * SCORE_UNIT
    assert 0 < scores["Case"] <= SCORE_UNIT
    assert scores == {"Case": round(exact)}


@pytest.mark.parametrize("decode", [decode_changes, decode_delta, decode_sales], ids=lambda decoder: decoder.__name__)
@pytest.mark.parametrize("value", [b"", b"\x93", encode((9, [])), b"\xff"])
def test_another_format_is_refused_with_a_way_out(decode, value):
    with pytest.raises(UnknownFormat, match="LATELY_ID"):
        decode(value)


# -- changes that follow from events


def changes_of(*events) -> list[PurchaseChange]:
    changes: list[PurchaseChange] = []
    value, overflow = None, {}
    for order_event in events:
        value = apply_event(b"ann", value, order_event, 0, overflow.get, overflow.__setitem__, 2, 1, [], changes)
    return changes


def test_a_purchase_and_its_removal_are_told_once_however_often_they_come():
    placed, removed = event(category="drinks"), event(REMOVED, version=2, category="drinks")
    moment = at(0)
    bought = ("ann", "tea", "drinks", int(moment.timestamp()) * 1_000_000, placed.data.price)
    assert changes_of(placed, placed, removed, removed, placed) == [(*bought, 1), (*bought, -1)]
    assert changes_of(removed, placed) == []


def test_a_purchase_with_another_price_time_or_category_is_taken_back_and_made_again():
    placed = event(category="drinks")
    assert len(changes_of(placed, event(CHANGED, version=2, category="drinks", payment_method="other"))) == 1
    drinks = {"category": "drinks"}
    for field in ({"category": "teas"}, {**drinks, "ordered_at": at(1)}, {**drinks, "price": "1.23"}):
        _, back, again = changes_of(placed, event(CHANGED, version=2, **field))
        assert (back[-1], again[-1]) == (-1, 1)
        assert back != (*again[:-1], -1)


def test_purchases_beyond_the_newest_are_told_too():
    events = [event(PLACED, order_id=number, product_name=f"p{number}", ordered_at=at(number)) for number in range(9)]
    assert [change[1] for change in changes_of(*events)] == [f"p{number}" for number in range(9)]
    assert changes_of(*events, event(REMOVED, order_id=0, product_name="p0", version=2))[-1][1::4] == ("p0", -1)
