"""Ids that commands are asked about."""

from __future__ import annotations

from app.errors import Unknown
from domain.events import MAX_ID_BYTES, MAX_ORDER_ID_BYTES, is_valid_order_id, is_valid_trace_id, is_valid_user_id


def require_user(user_id: str) -> None:
    """Raise Unknown for an id that no user can have."""
    if not is_valid_user_id(user_id):
        raise Unknown(f"{user_id!r} is not a user id: 1 to {MAX_ID_BYTES} bytes without control characters")


def require_order(order_id: str) -> None:
    """Raise Unknown for an id that no order can have."""
    if not is_valid_order_id(order_id):
        raise Unknown(f"{order_id!r} is not an order id: 1 to {MAX_ORDER_ID_BYTES} bytes without control characters")


def require_trace(trace_id: str) -> None:
    """Raise Unknown for what is no id of a trace."""
    if not is_valid_trace_id(trace_id):
        raise Unknown(f"{trace_id!r} is not the id of a trace: 32 digits 0-9 and a-f, the second part of a traceparent")
