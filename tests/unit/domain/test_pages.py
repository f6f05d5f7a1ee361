"""Pages equal a simple computation, and neither repeat nor skip rows while orders arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import pages as lists
from domain.codec import encode
from domain.pages import PagePosition, PurchaseFilter, PurchasesPage
from domain.purchases import OVERFLOW_FORMAT, RECENT_FORMAT, Purchase, RecentPurchases, has_order, newest_purchases
from tests.kit.histories import ORDER_IDS, PRODUCTS, bought, histories, limits, moments, newest_first


def walk(page_of, purchases, limit: int) -> list[PurchasesPage]:
    """All pages of `known`, or of what it returns for each page when it is a function."""
    pages, after = [], None
    while True:
        page = page_of(newest_first(purchases() if callable(purchases) else purchases), after, limit)
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
    first, later = (
        [purchase for purchase in stored_purchases if purchase.order_id != "10"] for stored_purchases in (first, later)
    )
    known = {purchase.identity: purchase for purchase in first}
    arriving = [
        bought(purchase.order_id, purchase.product_name, purchase.ordered_at, 100 + number)
        for number, purchase in enumerate(later)
        if purchase.identity not in known
    ]

    def now() -> list[Purchase]:
        seen = list(known.values())
        for _ in range(data.draw(st.integers(0, 3))):
            if arriving:
                purchase = arriving.pop()
                known[purchase.identity] = purchase
        return seen

    def names(pages: list[PurchasesPage]) -> list[tuple]:
        newest = [row if isinstance(row, Purchase) else row[0] for page in pages for row in page.rows]
        return [tuple(getattr(purchase, field) for field in KEYS[page_of]) for purchase in newest]

    listed = names(walk(page_of, now, limit))
    assert len(listed) == len(set(listed))
    assert set(names(walk(page_of, first, 100))) <= set(listed)


@given(histories, moments, moments, st.sampled_from(["card", None]))
def test_a_filter_admits_what_sql_would(purchases, since, until, paid):
    purchase_filter = PurchaseFilter(since, until, paid)
    assert [purchase for purchase in purchases if purchase_filter.matches(purchase)] == [
        purchase
        for purchase in purchases
        if since <= purchase.ordered_at < until and (paid is None or purchase.payment_method == paid)
    ]


def test_an_amount_is_exact_and_an_empty_list_is_one_empty_page():
    dear = [bought("o", product, price="999999999999999999.9999999999") for product in PRODUCTS]
    assert lists.sum_prices(lists.paginate_orders(dear, None, 5).rows[0]) == "2999999999999999999.9999999997"
    for page_of in KEYS:
        assert page_of([], None, 5) == PurchasesPage([], None, None)


def test_the_oldest_row_of_a_page_is_told():
    purchases = newest_first([bought(number, at=number) for number in range(5)])
    assert lists.paginate_purchases(purchases, None, 2).oldest_ordered_at == 3
    assert lists.paginate_purchases(purchases, PagePosition(purchases[2].sort_key, 3, 0), 5).oldest_ordered_at == 0


# --- what of the table is read for a page --------------------------------------------------------------------


def stored(purchases: list[Purchase], inline: int) -> tuple[bytes, list[bytes]]:
    """Return the value of a user with the newest `inline` purchases, and the overflow."""
    ranked = newest_first(purchases)
    overflow = ranked[inline:]
    floor = overflow[0].ordered_at if overflow else None
    value = encode(RecentPurchases(RECENT_FORMAT, floor, tuple(ranked[:inline])))
    return value, [encode((OVERFLOW_FORMAT, purchase)) for purchase in overflow]


@given(histories, st.integers(0, 18), limits, moments, st.sampled_from(["card", None]))
def test_what_is_shown_is_what_is_wanted_of_all_wherever_it_is_kept(purchases, inline, limit, since, paid):
    purchase_filter = PurchaseFilter(since, None, paid)
    value, overflow = stored(purchases, inline)
    expected = [purchase for purchase in newest_first(purchases) if purchase_filter.matches(purchase)]
    assert newest_purchases(value, lambda: overflow, limit, purchase_filter.matches, since) == expected[:limit]
    assert newest_purchases(value, lambda: overflow, None, purchase_filter.matches, since) == expected


def test_what_is_kept_beside_is_not_read_where_it_cannot_matter():
    def never():
        raise AssertionError("not needed")

    value, _ = stored([bought(number, at=number) for number in range(10)], 5)
    assert len(newest_purchases(value, never, 5)) == 5
    assert len(newest_purchases(value, never, 100, PurchaseFilter(since=5).matches, since=5)) == 5
    assert newest_purchases(value, never, 1, lambda purchase: purchase.ordered_at < 7)[0].ordered_at == 6


@given(histories, st.integers(0, 18), st.sampled_from(ORDER_IDS), st.booleans())
def test_an_order_is_known_once_any_purchase_of_it_has_arrived(purchases, inline, order_id, live):
    purchases = [bought(*purchase.identity, purchase.ordered_at, live=live) for purchase in purchases]
    value, overflow = stored(purchases, inline)
    assert has_order(value, lambda: overflow, str(order_id)) == (
        str(order_id) in {str(purchase.order_id) for purchase in purchases}
    )


def test_a_user_never_seen_has_no_order():
    assert not has_order(None, lambda: [], "o")
