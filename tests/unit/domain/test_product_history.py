"""The history of a product contains all purchases that were not removed, in any order of records."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.codec import encode
from domain.errors import UnknownFormat
from domain.product_history import MAX_FUTURE_COUNTS, ProductHistory, add_purchases, decode_history
from domain.values import HOUR_US

NOW = 24 * 365
TIMES_AND_PRICES = st.tuples(st.integers(NOW - 200, NOW).map(lambda hour: hour * HOUR_US), st.sampled_from(["1", "2"]))


@given(st.lists(st.lists(st.tuples(TIMES_AND_PRICES, st.booleans()), max_size=8), max_size=8))
def test_counts_and_newest_purchases_are_those_of_all_that_is_not_taken_back(steps):
    value, live_purchases = None, Counter()
    for step in steps:
        changes = []
        for key, bought in step:
            if bought or live_purchases[key]:
                live_purchases[key] += 1 if bought else -1
                changes.append((*key, 1 if bought else -1))
        value = add_purchases(value, changes, NOW, max_entries=6, trim_to=4)
    history, truth = decode_history(value), sorted(live_purchases.elements(), reverse=True)
    hours, days = Counter(), Counter()
    for ordered_at, _price in truth:
        days[ordered_at // (24 * HOUR_US)] += 1
        if ordered_at // HOUR_US >= NOW - 168:
            hours[ordered_at // HOUR_US] += 1
    assert (history.by_hour(NOW), history.by_day(NOW)) == (dict(hours), dict(days))
    for limit in (1, 4, 100):
        page = history.page_after(limit)
        assert page.rows == truth[: len(page.rows)]
        assert not page.is_complete or page.rows == truth[:limit]
    assert history.floor is not None or history.page_after(100)[::2] == (truth, True)


@given(st.lists(TIMES_AND_PRICES, max_size=12), st.integers(1, 4), st.lists(TIMES_AND_PRICES, max_size=3))
def test_pages_show_each_purchase_once_also_while_newer_ones_arrive(times_and_prices, limit, newer):
    value = add_purchases(None, [(*place, 1) for place in times_and_prices], NOW)
    page = decode_history(value).page_after(limit)
    rows = page.rows
    value = add_purchases(value, [(at + 10_000 * HOUR_US, price, 1) for at, price in newer], NOW)
    while page.next_position is not None:
        page = decode_history(value).page_after(limit, page.next_position)
        assert page.rows
        assert page.is_complete
        rows = rows + page.rows
    assert rows == sorted(times_and_prices, reverse=True)


@pytest.mark.parametrize(
    ("hour", "kept"), [(NOW - 90 * 24, True), (NOW - 91 * 24, False), (NOW + 24, True), (NOW + 48, False)]
)
def test_days_of_long_ago_or_far_ahead_are_not_counted(hour: int, kept: bool):
    assert decode_history(add_purchases(None, [(hour * HOUR_US, "1", 2)], NOW)).by_day(NOW) == (
        {hour // 24: 2} if kept else {}
    )


@pytest.mark.parametrize("ahead", [25, 48, 100])
def test_what_was_dated_ahead_and_is_taken_back_when_its_time_has_come_takes_nothing_from_others(ahead: int):
    at = (NOW + ahead) * HOUR_US
    early = add_purchases(None, [(at, "1", 1)], NOW)
    assert decode_history(early).by_hour(NOW) == {}
    later = add_purchases(early, [(at, "1", 5), (at, "1", -1)], NOW + ahead)
    assert decode_history(later).by_hour(NOW + ahead) == {NOW + ahead: 5}
    assert decode_history(later).by_day(NOW + ahead) == {(NOW + ahead) // 24: 5}


def test_counts_are_too_old_when_their_time_has_passed_also_where_nothing_was_bought_since():
    value = add_purchases(None, [(NOW * HOUR_US, "1", 1)], NOW)
    assert decode_history(value).by_hour(NOW + 168) == {NOW: 1}
    assert decode_history(value).by_hour(NOW + 169) == {}
    assert decode_history(value).by_day(NOW + 91 * 24) == {}


def test_what_is_remembered_of_the_time_to_come_is_bounded():
    value = add_purchases(None, [((NOW + 100 + number) * HOUR_US, "1", 1) for number in range(1_000)], NOW)
    assert len(decode_history(value).hours) == MAX_FUTURE_COUNTS
    assert min(decode_history(value).hours) == NOW + 100


def test_the_newest_purchases_are_bounded():
    value = None
    for number in range(1_000):
        value = add_purchases(value, [(number * HOUR_US, "1", 1)], NOW)
        assert len(decode_history(value).newest) <= 200
    assert decode_history(value).page_after(100).rows == [(number * HOUR_US, "1") for number in range(999, 899, -1)]


def test_another_format_is_refused_with_a_way_out():
    with pytest.raises(UnknownFormat, match="LATELY_ID"):
        decode_history(encode(ProductHistory(format=9)))
