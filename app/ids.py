"""Validation of the ids in the arguments of commands."""

from __future__ import annotations

from app.errors import UnknownTarget
from domain.events import MAX_ID_BYTES, MAX_ORDER_ID_BYTES, is_valid_order_id, is_valid_trace_id, is_valid_user_id


def require_user_id(user_id: str) -> None:
    """Raise UnknownTarget unless this can be the id of a user."""
    if not is_valid_user_id(user_id):
        raise UnknownTarget(f"{user_id!r} is not a user id: 1 to {MAX_ID_BYTES} bytes without control characters")


def require_order_id(order_id: str) -> None:
    """Raise UnknownTarget unless this can be the id of an order."""
    if not is_valid_order_id(order_id):
        raise UnknownTarget(
            f"{order_id!r} is not an order id: 1 to {MAX_ORDER_ID_BYTES} bytes without control characters"
        )


def require_trace_id(trace_id: str) -> None:
    """Raise UnknownTarget unless this can be the id of a trace."""
    if not is_valid_trace_id(trace_id):
        raise UnknownTarget(
            f"{trace_id!r} is not the id of a trace: 32 digits 0-9 and a-f, the second part of a traceparent"
        )
