"""Text output of `lately trace`, and the states of an order's events in its history."""

from __future__ import annotations

from datetime import datetime, timezone

from commands.trace.events_of_order import LoggedEvent, describe_states
from commands.trace.text import format_trace, new_lines
from domain.events import CHANGED, PLACED, REPAIRED, SCHEMA, OrderEvent, OrderLine
from source.order_trace import OrderTrace

STAGES = [
    {"stage": "captured", "at": "2026-01-31T12:00:00.000000Z", "ms": None, "event_id": "e-1", "type": PLACED,
     "traceparent": None},
    {"stage": "published", "at": "2026-01-31T12:00:00.020000Z", "ms": 20.0, "topic": "orders", "partition": 2,
     "offset": 7},
]  # fmt: skip


def trace(diagnosis: str) -> OrderTrace:
    return OrderTrace("different", diagnosis, {
        "order_id": "o-1", "user_id": None, "outcome": "different", "diagnosis": diagnosis,
        "purchases": [{"product_name": "Phone", "outcome": "different", "diagnosis": diagnosis, "version": 3,
                       "stages": STAGES}],
        "meta": {"records_fetched": 4, "took_ms": 12.5},
    })  # fmt: skip


def test_a_trace_is_printed_with_its_stages_or_with_its_diagnosis_only():
    assert format_trace(trace("in outbox for 2.0 s: start it"), with_stages=True).splitlines() == [
        "order o-1 of user (unknown)",
        "",
        "Phone, version 3",
        f"  captured  2026-01-31T12:00:00.000000Z               e-1  {PLACED}",
        "  published 2026-01-31T12:00:00.020000Z       +20 ms  orders[2]@7",
        "  in outbox for 2.0 s: start it",
        "",
        "in outbox for 2.0 s: start it",
        "(4 records fetched, 12 ms)",
    ]
    assert format_trace(trace("visible"), with_stages=False) == "\nvisible\n(4 records fetched, 12 ms)"


def test_a_followed_trace_prints_each_stage_and_each_reason_once():
    printed: set[tuple[str, str]] = set()
    assert [line.split()[1] for line in new_lines(trace("in outbox for 2.0 s: start it"), printed)] == [
        "captured", "published", "in"
    ]  # fmt: skip
    assert list(new_lines(trace("in outbox for 3.0 s: start it"), printed)) == []
    assert list(new_lines(trace("visible since noon"), printed)) == ["Phone: visible since noon"]


def logged(offset: int, version: int, event_type: str = CHANGED) -> LoggedEvent:
    line = OrderLine("ann", "o-1", "Phone", "1", datetime(2026, 1, 31, tzinfo=timezone.utc), version)
    return LoggedEvent(0, offset, OrderEvent("1.0", f"e-{offset}", "/shop", event_type, "now", SCHEMA, line))


def test_the_newest_version_is_applied_and_a_repair_replaces_its_equal():
    history = [logged(0, 1, PLACED), logged(1, 2), logged(2, 2), logged(3, 2, REPAIRED)]
    assert [fields["state"] for fields in describe_states(history[:3])] == [
        "superseded by version 2", "applied", "repeated"
    ]  # fmt: skip
    assert [fields["state"] for fields in describe_states(history)] == [
        "superseded by version 2", "repeated", "repeated", "applied"
    ]  # fmt: skip
