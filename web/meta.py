"""The object `meta` of a response: freshness, completeness and worker."""

from __future__ import annotations

from app.services.source_status import Freshness
from domain.values import utc_datetime
from web.http.problems import Problem
from web.purchase_query import PurchaseQuery
from web.purchase_rows import AnyPage
from web.routing import RETRY_AFTER_S
from web.schemas import ListMeta, PurchasesMeta, Role


def build_meta(query: PurchaseQuery, page: AnyPage, freshness: Freshness, role: Role, worker: str) -> PurchasesMeta:
    """Return the `meta` of a response with one page of purchases."""
    return PurchasesMeta(
        query.limit,
        is_complete(query, page, freshness.horizon),
        None if freshness.as_of is None else utc_datetime(freshness.as_of),
        freshness.lag_ms,
        role,
        worker,
        freshness.guarantee,
        freshness.unseen,
        None if freshness.verified_at is None else utc_datetime(freshness.verified_at),
    )


def build_list_meta(limit: int, freshness: Freshness, is_whole: bool, role: Role, worker: str) -> ListMeta:
    """Return the `meta` of a list of products; `is_whole`: no worker was missing."""
    return ListMeta(
        limit,
        is_whole and freshness.horizon is None,
        None if freshness.as_of is None else utc_datetime(freshness.as_of),
        freshness.lag_ms,
        role,
        worker,
        freshness.guarantee,
    )


def is_complete(query: PurchaseQuery, page: AnyPage, horizon: int | None) -> bool:
    """Return whether no row of the page can be missing.

    Only rows ordered before `horizon` may be missing.
    """
    if horizon is None or (query.filter.since is not None and query.filter.since >= horizon):
        return True
    if page.oldest_ordered_at is None or query.group_by is not None:
        return False  # an order or a product may also have older purchases than those of its row
    return len(page.rows) == query.limit and page.oldest_ordered_at >= horizon


def require_fresh(query: PurchaseQuery, freshness: Freshness) -> None:
    """Raise Problem 503 too-stale if the response may be older than the query allows."""
    if query.max_lag_ms is None or (freshness.lag_ms is not None and freshness.lag_ms <= query.max_lag_ms):
        return
    lag = "unknown" if freshness.lag_ms is None else f"{freshness.lag_ms} ms"
    detail = f"the answer's lag is {lag}, more than max_lag_ms={query.max_lag_ms}"
    raise Problem(503, "too-stale", detail, retry_after_s=RETRY_AFTER_S)
