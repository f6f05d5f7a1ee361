"""Pages hold what brute force says, end where they should, and neither repeat nor skip while orders arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import pages as lists
from domain.codec import encode
from domain.pages import PagePosition, PurchaseFilter, PurchasesPage
from domain.purchases import OVERFLOW_FORMAT, RECENT_FORMAT, Purchase, RecentPurchases, has_order, newest_purchases
from tests.kit.histories import ORDER_IDS, PRODUCTS, bought, histories, limits, moments, newest_first


def walk(page_of, known, limit: int) -> list[PurchasesPage]:
    """All pages of `known`, or of what it returns for each page when it is a function."""
    pages, after = [], None
    while True:
        page = page_of(newest_first(known() if callable(known) else known), after, limit)
        pages.append(page)
        if page.next_position is None:
            return pages
        after = page.next_position


KEYS = {
    lists.paginate_purchases: ("order_id", "product_name"),
    lists.paginate_orders: ("order_id",),
    lists.paginate_products: ("product_name",),
}


@pytest.mark.parametrize("page_of", KEYS, ids=lambda page_of: page_of.__name__)
@given(histories, histories, limits, st.data())
def test_while_orders_arrive_nothing_repeats_and_nothing_that_was_there_is_skipped(page_of, first, later, limit, data):
    # Text and number of one id would count as one row below.
    first, later = ([one for one in known if one.order_id != "10"] for known in (first, later))
    known = {one.identity: one for one in first}
    arriving = [
        bought(one.order_id, one.product_name, one.ordered_at, 100 + number)
        for number, one in enumerate(later)
        if one.identity not in known
    ]

    def now() -> list[Purchase]:
        seen = list(known.values())
        for _ in range(data.draw(st.integers(0, 3))):
            if arriving:
                one = arriving.pop()
                known[one.identity] = one
        return seen

    def names(pages: list[PurchasesPage]) -> list[tuple]:
        newest = [row if isinstance(row, Purchase) else row[0] for page in pages for row in page.rows]
        return [tuple(getattr(purchase, field) for field in KEYS[page_of]) for purchase in newest]

    said = names(walk(page_of, now, limit))
    assert len(said) == len(set(said))
    assert set(names(walk(page_of, first, 100))) <= set(said)


@given(histories, moments, moments, st.sampled_from(["card", None]))
def test_a_filter_admits_what_sql_would(known, since, until, paid):
    wanted = PurchaseFilter(since, until, paid)
    assert [one for one in known if wanted.matches(one)] == [
        one for one in known if since <= one.ordered_at < until and (paid is None or one.payment_method == paid)
    ]


def test_an_amount_is_exact_and_an_empty_list_is_one_empty_page():
    dear = [bought("o", product, price="999999999999999999.9999999999") for product in PRODUCTS]
    assert lists.sum_prices(lists.paginate_orders(dear, None, 5).rows[0]) == "2999999999999999999.9999999997"
    for page_of in KEYS:
        assert page_of([], None, 5) == PurchasesPage([], None, None)


def test_the_oldest_row_of_a_page_is_told():
    known = newest_first([bought(number, at=number) for number in range(5)])
    assert lists.paginate_purchases(known, None, 2).oldest_ordered_at == 3
    assert lists.paginate_purchases(known, PagePosition(known[2].sort_key, 3, 0), 5).oldest_ordered_at == 0


# --- what of the table is read for a page --------------------------------------------------------------------


def stored(known: list[Purchase], inline: int) -> tuple[bytes, list[bytes]]:
    """The value of a user whose newest `inline` purchases are in it, and the values beside."""
    ranked = newest_first(known)
    beside = ranked[inline:]
    floor = beside[0].ordered_at if beside else None
    value = encode(RecentPurchases(RECENT_FORMAT, floor, tuple(ranked[:inline])))
    return value, [encode((OVERFLOW_FORMAT, one)) for one in beside]


@given(histories, st.integers(0, 18), limits, moments, st.sampled_from(["card", None]))
def test_what_is_shown_is_what_is_wanted_of_all_wherever_it_is_kept(known, inline, limit, since, paid):
    wanted = PurchaseFilter(since, None, paid)
    value, beside = stored(known, inline)
    truth = [one for one in newest_first(known) if wanted.matches(one)]
    assert newest_purchases(value, lambda: beside, limit, wanted.matches, since) == truth[:limit]
    assert newest_purchases(value, lambda: beside, None, wanted.matches, since) == truth


def test_what_is_kept_beside_is_not_read_where_it_cannot_matter():
    def never():
        raise AssertionError("not needed")

    value, _ = stored([bought(number, at=number) for number in range(10)], 5)
    assert len(newest_purchases(value, never, 5)) == 5
    assert len(newest_purchases(value, never, 100, PurchaseFilter(since=5).matches, since=5)) == 5
    assert newest_purchases(value, never, 1, lambda one: one.ordered_at < 7)[0].ordered_at == 6


@given(histories, st.integers(0, 18), st.sampled_from(ORDER_IDS), st.booleans())
def test_an_order_is_known_once_any_purchase_of_it_has_arrived(known, inline, order_id, live):
    known = [bought(*one.identity, one.ordered_at, live=live) for one in known]
    value, beside = stored(known, inline)
    assert has_order(value, lambda: beside, str(order_id)) == (str(order_id) in {str(one.order_id) for one in known})


def test_a_user_never_seen_has_no_order():
    assert not has_order(None, lambda: [], "o")
