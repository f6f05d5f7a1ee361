"""There is one sentence for whatever can have happened to a purchase, and what is wrong is never called right."""

from __future__ import annotations

import pytest

from domain.diagnosis import (
    CANCELLED,
    DIFFERENT,
    UNKNOWN,
    VISIBLE,
    DeadLetterSummary,
    Evidence,
    PendingChange,
    ShopRow,
    diagnose,
    summarize,
)
from domain.events import CHANGED, PLACED, REMOVED
from domain.purchases import Purchase
from domain.values import rfc3339


def make_purchase(version: int = 7, *, live: bool = True, price: str = "5.00", at: int = 1_000) -> Purchase:
    return Purchase("o-1", "Phone", version, live, at, price, "card", None, 42)


ROW = ShopRow("ann", "Phone", make_purchase(0))
BROKEN_ROW = ShopRow("ann", "Phone", None, "price must")
WAITING = PendingChange("ann", "Phone", PLACED, 12.34)
DEAD = DeadLetterSummary("0@3", "broken-rule", "price must be a number")


@pytest.mark.parametrize(
    ("evidence", "outcome", "expected"),
    [
        ({"row": ROW, "purchase": make_purchase()}, VISIBLE, "visible"),
        ({"row": ROW, "open_transaction": 5}, DIFFERENT,
         "in Kafka, behind an open transaction since offset 5: no worker reads further before its producer ends it, "
         "or `kafka-transactions.sh abort --start-offset 5`"),
        ({"row": ROW, "purchase": make_purchase(), "applied_at": 0}, VISIBLE, f"visible since {rfc3339(0)}"),
        ({"row": ROW, "purchase": make_purchase(), "event_type": CHANGED}, VISIBLE,
         "visible; the version before is superseded by version 7 (order.changed)"),
        ({"row": ROW, "pending": WAITING, "is_source_running": False}, DIFFERENT,
         "in outbox for 12.3 s: no source is running, start `lately source`"),
        ({"row": ROW, "pending": WAITING, "is_source_running": True}, DIFFERENT, "in outbox for 12.3 s: the source"),
        ({"row": ShopRow("ann", "Phone", make_purchase(0, price="9")), "purchase": make_purchase(),
          "pending": WAITING}, DIFFERENT, "a newer change is in outbox for 12.3 s"),
        ({"purchase": make_purchase(), "pending": PendingChange("ann", "Phone", REMOVED, 1)}, DIFFERENT,
         "its removal is in outbox for 1.0 s"),
        ({"row": ROW, "lag": 3}, DIFFERENT, "in Kafka, lag 3"),
        ({"purchase": make_purchase(), "lag": 3}, DIFFERENT, "in Kafka, lag 3"),
        ({"row": ShopRow("ann", "Phone", None, "price must"), "dead_letter": DEAD}, DIFFERENT,
         "in DLQ: broken-rule (price"),
        ({"dead_letter": DEAD}, DIFFERENT, "in DLQ: broken-rule"),
        ({"row": ShopRow("ann", "Phone", None, "price must")}, DIFFERENT,
         "not visible, because its row breaks a rule: price must"),
        ({"row": BROKEN_ROW, "purchase": make_purchase(8, live=False), "dead_letter": DEAD}, DIFFERENT,
         "not visible, because its row breaks a rule: price must, taken back by version 8; correct the row; `lately"),
        ({"row": BROKEN_ROW, "purchase": make_purchase(8, live=False), "applied_at": 0}, DIFFERENT,
         f"not visible, because its row breaks a rule: price must, taken back by version 8 at {rfc3339(0)}; correct"),
        ({"row": BROKEN_ROW, "purchase": make_purchase(), "dead_letter": DEAD}, DIFFERENT,
         "its row breaks a rule: price must, but its former values are visible"),
        ({"purchase": make_purchase(8, live=False), "dead_letter": DEAD}, CANCELLED, "cancelled: removed by version 8"),
        ({"row": ShopRow("ann", "Phone", make_purchase(0, price="5.0000")), "purchase": make_purchase()}, VISIBLE,
         "visible"),
        ({"row": ROW, "horizon": 1_001}, DIFFERENT, "older than the first snapshot: `lately source snapshot --all`"),
        ({"row": ROW, "horizon": 1_000, "is_source_running": False}, DIFFERENT, "in MySQL and nowhere else"),
        ({"row": ROW, "is_source_running": True}, DIFFERENT, "in MySQL, but no trigger captured it"),
        ({"row": ROW, "purchase": make_purchase(8, live=False)}, DIFFERENT, "applied, superseded by version 8"),
        ({"row": ShopRow("ann", "Phone", make_purchase(0, price="9")), "purchase": make_purchase()}, DIFFERENT,
         "applied as version 7, but MySQL has other values"),
        ({"row": ShopRow("bob", "Phone", make_purchase(0)), "purchase": make_purchase(8, live=False)}, CANCELLED,
         "moved to another user, bob"),
        ({"row": ShopRow("bob", "Phone", make_purchase(0)), "purchase": make_purchase()}, DIFFERENT,
         "moved to another user, bob, but"),
        ({"purchase": make_purchase()}, DIFFERENT, "visible, but not in MySQL"),
        ({"purchase": make_purchase(8, live=False)}, CANCELLED, "cancelled: removed by version 8"),
        ({"purchase": make_purchase(8, live=False), "applied_at": 0}, CANCELLED,
         f"cancelled: removed by version 8 at {rfc3339(0)}"),
        ({}, UNKNOWN, "not in MySQL"),
        ({"lag": 3}, UNKNOWN, "not in MySQL"),
    ],
)  # fmt: skip
def test_there_is_a_sentence_for_it(evidence, outcome, expected):
    actual_outcome, sentence = diagnose(Evidence("ann", **evidence))
    assert (actual_outcome, sentence[: len(expected)]) == (outcome, expected)


def test_of_an_order_what_is_wrong_counts_first():
    assert summarize([("Phone", VISIBLE, "v"), ("Case", VISIBLE, "w")]) == (VISIBLE, "v")
    assert summarize([("Phone", VISIBLE, "v"), ("Case", DIFFERENT, "d")]) == (
        DIFFERENT, "1 of 2 purchases different: Case: d"
    )  # fmt: skip
    assert summarize([("Phone", CANCELLED, "c"), ("Case", VISIBLE, "v")])[0] == VISIBLE
