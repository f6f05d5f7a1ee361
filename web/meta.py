"""What an answer says about itself: how fresh it is, whether it is complete, and who gave it."""

from __future__ import annotations

from app.core import app
from app.services.source_status import Freshness
from domain.pages import PurchasesPage
from domain.values import rfc3339
from web.http.problems import Problem
from web.purchase_query import PurchaseQuery
from web.routing import RETRY_AFTER_S


def meta(query: PurchaseQuery, page: PurchasesPage, fresh: Freshness, role: str) -> dict[str, object]:
    """The `meta` of an answer made of one page."""
    return {
        "limit": query.limit,
        "complete": complete(query, page, fresh.horizon),
        "as_of": None if fresh.as_of is None else rfc3339(fresh.as_of),
        "lag_ms": fresh.lag_ms,
        "role": role,
        "worker": app.address,
        "guarantee": fresh.guarantee,
        "unseen": fresh.unseen,
        "verified_at": None if fresh.verified_at is None else rfc3339(fresh.verified_at),
    }


def complete(query: PurchaseQuery, page: PurchasesPage, horizon: int | None) -> bool:
    """Whether no row of the page can be missing; all that may be missing was ordered before `horizon`."""
    if horizon is None or (query.filter.since is not None and query.filter.since >= horizon):
        return True
    # An order or a product also has purchases from before those that the page ends with.
    return query.group_by is None and len(page.rows) == query.limit and page.oldest_ordered_at >= horizon


def require_fresh(query: PurchaseQuery, fresh: Freshness) -> None:
    """Raise Problem 503 too-stale where the answer may be older than was asked for."""
    if query.max_lag_ms is None or (fresh.lag_ms is not None and fresh.lag_ms <= query.max_lag_ms):
        return
    known = "unknown" if fresh.lag_ms is None else f"{fresh.lag_ms} ms"
    detail = f"the answer's lag is {known}, more than max_lag_ms={query.max_lag_ms}"
    raise Problem(503, "too-stale", detail, retry_after_s=RETRY_AFTER_S)
