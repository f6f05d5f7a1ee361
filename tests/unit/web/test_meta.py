"""An answer is complete only where no row that may be missing could belong into it."""

from __future__ import annotations

import pytest

from app.services.source_status import Freshness
from domain.pages import PurchaseFilter, PurchasesPage
from web.http.problems import Problem
from web.meta import build_meta, is_complete, require_fresh
from web.purchase_query import PurchaseQuery

HORIZON = 100


def page(*moments: int) -> PurchasesPage:
    return PurchasesPage([{"ordered_at": one} for one in moments], None, min(moments, default=None))


@pytest.mark.parametrize(
    ("query", "shown", "expected"),
    [
        (PurchaseQuery(2), page(120, 100), True),
        (PurchaseQuery(2), page(120, 99), False),
        (PurchaseQuery(3), page(120, 110), False),
        (PurchaseQuery(2), page(), False),
        (PurchaseQuery(2, filter=PurchaseFilter(since=HORIZON)), page(), True),
        (PurchaseQuery(2, filter=PurchaseFilter(since=HORIZON - 1)), page(120), False),
        (PurchaseQuery(2, group_by="order"), page(120, 110), False),
        (PurchaseQuery(2, group_by="product", filter=PurchaseFilter(since=HORIZON)), page(120), True),
    ],
)
def test_what_may_be_missing_before_the_horizon_makes_a_page_incomplete(query, shown, expected):
    assert is_complete(query, shown, HORIZON) is expected
    assert is_complete(query, shown, None)


@pytest.mark.parametrize(
    ("lag_ms", "most", "enough"), [(5, 5, True), (6, 5, False), (None, 5, False), (None, None, True)]
)
def test_an_answer_older_than_asked_for_or_of_unknown_age_is_too_stale(lag_ms, most, enough):
    query, fresh = PurchaseQuery(2, max_lag_ms=most), Freshness(None, lag_ms, "none", None)
    if enough:
        require_fresh(query, fresh)
        return
    with pytest.raises(Problem) as caught:
        require_fresh(query, fresh)
    assert (caught.value.status, caught.value.code, caught.value.retry_after_s) == (503, "too-stale", 1)


def test_changes_that_the_source_cannot_see_are_named():
    fresh = Freshness(None, None, "proven", None, ("changed", "removed"))
    meta = build_meta(PurchaseQuery(2), page(120, 110), fresh, "active", "http://here")
    assert meta.unseen == ("changed", "removed")
