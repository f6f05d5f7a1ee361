"""The query parameters of lists of purchases."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from aiohttp.web import Request

from domain.events import MAX_LABEL, MAX_ORDER_ID_BYTES
from domain.pages import PurchaseFilter
from web.http import parameters
from web.http.parameters import LIMIT, MAX_LIMIT
from web.http.routes import Parameter

MAX_WAIT_MS = 5_000

_TIME: dict[str, object] = {"type": "string", "format": "date-time"}
_LABEL: dict[str, object] = {"type": "string", "minLength": 1, "maxLength": 255}

#: Select and group the rows; the routes of many users and of streams have only these.
SELECTION = (
    LIMIT,
    Parameter("group_by", "Group the rows by order or by product", {"type": "string", "enum": ["order", "product"]}),
    Parameter("since", "Ordered at this time or later", _TIME, example="2026-01-01T00:00:00Z"),
    Parameter("until", "Ordered before this time", _TIME, example="2027-01-01T00:00:00Z"),
    Parameter("payment_method", "Paid with this method", _LABEL),
)
#: Requirements on how current the response is.
FRESHNESS = (
    Parameter("max_lag_ms", "503 too-stale if the data is older", {"type": "integer", "minimum": 0}),
    Parameter("after_order", "Respond after this order has arrived", _LABEL),
    Parameter("wait_ms", "How long to wait for `after_order`", {"type": "integer", "minimum": 0, "maximum": 5000}),
    Parameter(
        "consistency",
        "`active`: only the owner of the partition responds; `source`: read MySQL",
        {"type": "string", "enum": ["any", "active", "source"]},
        example="any",
    ),
)
SELECTION_NAMES = tuple(parameter.name for parameter in SELECTION)
ALL_NAMES = (*SELECTION_NAMES, "cursor", *(parameter.name for parameter in FRESHNESS))


class PurchaseQuery(NamedTuple):
    """A query for the purchases of a user."""

    limit: int
    cursor: str | None = None
    group_by: str | None = None
    filter: PurchaseFilter = PurchaseFilter()
    max_lag_ms: int | None = None
    after_order: str | None = None
    wait_ms: int = 0
    consistency: str = "any"

    def bound_to(self, user_id: str) -> tuple[object, ...]:
        """Return the values that a cursor is bound to: all but limit and cursor."""
        return (user_id, *self[2:])


def read(request: Request, allowed: tuple[str, ...], default_limit: int) -> PurchaseQuery:
    """Return the query of a request; only the parameters in `allowed` may occur.

    Raises Problem 400 unknown-parameter, invalid-parameter.
    """
    if not request.query_string:
        return _default(default_limit)
    parameters.require_known(request, *allowed)
    since, until = parameters.read_time(request, "since"), parameters.read_time(request, "until")
    if since is not None and until is not None and since > until:
        raise parameters.invalid_parameter("since", "since must not be later than until")
    return PurchaseQuery(
        parameters.read_limit(request, default_limit),
        parameters.read_cursor(request),
        parameters.read_choice(request, "group_by", "order", "product"),
        PurchaseFilter(since, until, parameters.read_text(request, "payment_method", MAX_LABEL)),
        parameters.read_number(request, "max_lag_ms"),
        parameters.read_text(request, "after_order", MAX_ORDER_ID_BYTES),
        parameters.read_number(request, "wait_ms", maximum=MAX_WAIT_MS) or 0,
        parameters.read_choice(request, "consistency", "any", "active", "source") or "any",
    )


@cache
def _default(default_limit: int) -> PurchaseQuery:
    return PurchaseQuery(min(default_limit, MAX_LIMIT))
