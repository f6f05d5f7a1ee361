"""Differences have the right kind, and a repair never overwrites a newer change."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from domain import purchases
from domain.differences import (
    CHANGED,
    EXTRA,
    MISSING,
    PurchaseDifference,
    build_repair,
    count_optional,
    find_differences,
    is_unchanged,
)
from domain.events import Event, OrderLine, read_event
from domain.purchases import Purchase
from tests.kit.makers import event, wire


def make_purchase(order: str = "o1", **changes: object) -> Purchase:
    fields = {
        "version": 5,
        "live": True,
        "ordered_at": 100,
        "price": "1.50",
        "payment_method": "card",
        "category": None,
    }
    return Purchase(order_id=order, product_name="Phone", **{**fields, **changes})


@pytest.mark.parametrize(
    ("rows", "registers", "kinds"),
    [
        ([], [], []),
        ([make_purchase(version=0)], [make_purchase()], []),
        ([make_purchase()], [], [MISSING]),
        ([make_purchase()], [make_purchase(live=False)], [MISSING]),
        ([], [make_purchase()], [EXTRA]),
        ([], [make_purchase(live=False)], []),
        ([make_purchase(price="1.51")], [make_purchase()], [CHANGED]),
        # The value of a price counts: after an ALTER TABLE the same prices have other decimals.
        ([make_purchase(price="1.5")], [make_purchase()], []),
        ([make_purchase(price="1.5000")], [make_purchase()], []),
        ([make_purchase(ordered_at=101)], [make_purchase()], [CHANGED]),
        ([make_purchase(payment_method=None)], [make_purchase()], [CHANGED]),
        ([make_purchase(category="x")], [make_purchase()], [CHANGED]),
        ([make_purchase(price="2"), make_purchase()], [make_purchase()], []),
        ([make_purchase(order=1)], [make_purchase(order="1")], [EXTRA, MISSING]),
        ([make_purchase("o2"), make_purchase("o3")], [make_purchase("o3"), make_purchase("o4")], [EXTRA, MISSING]),
    ],
)
def test_each_difference_is_named(rows: list[Purchase], registers: list[Purchase], kinds: list[str]):
    assert sorted(found.kind for found in find_differences("ann", rows, registers, None)) == kinds


def test_what_was_never_taken_over_is_not_missing():
    assert find_differences("ann", [make_purchase(ordered_at=99)], [], horizon=100) == []
    assert [found.kind for found in find_differences("ann", [make_purchase(ordered_at=100)], [], horizon=100)] == [
        MISSING
    ]
    assert [
        found.kind
        for found in find_differences("ann", [make_purchase(ordered_at=99, price="2")], [make_purchase()], 100)
    ] == [CHANGED]


@pytest.mark.parametrize(
    ("ordered_at", "registers", "horizon", "count"),
    [(99, [], 100, 1), (100, [], 100, 0), (99, [], None, 0), (99, [make_purchase()], 100, 0)],
)
def test_rows_that_may_be_missing_and_are_missing_are_counted(ordered_at, registers, horizon, count):
    rows = [make_purchase(ordered_at=ordered_at, price="2"), make_purchase(ordered_at=ordered_at)]
    assert count_optional(rows, registers, horizon) == count


def test_a_purchase_that_the_stream_changed_meanwhile_is_not_decided():
    difference = PurchaseDifference(CHANGED, "ann", make_purchase(price="2"), make_purchase())
    assert is_unchanged(difference, [make_purchase(), make_purchase("o2")])
    assert not is_unchanged(difference, [make_purchase(version=4)])
    assert not is_unchanged(difference, [])
    assert is_unchanged(PurchaseDifference(MISSING, "ann", make_purchase(), None), [make_purchase("o2")])


def purchases_after(*events: Event) -> list[Purchase]:
    value, overflow = None, {}
    remember: Callable = purchases.apply_event
    for offset, applied in enumerate(events):
        read = read_event(*wire(applied))
        value = remember(b"ann", value, read, offset, overflow.get, overflow.__setitem__, 4, 2, [])
    return purchases.all_purchases(value, [entry for entry in overflow.values() if entry is not None])


def purchase_event(kind: str, version: int, price: str) -> Event:
    return event(user_id="ann", order_id="o1", product_name="Phone", type=kind, version=version, price=price)


@pytest.mark.parametrize("seed", range(1000))
def test_a_repair_that_races_with_newer_changes_ends_as_the_database_does(seed: int):
    dice = random.Random(seed)
    history = [purchase_event(dice.choice(["order.placed", "order.changed", "order.removed"]), version, str(version))
               for version in sorted(dice.sample(range(10, 100), dice.randint(1, 5)))]  # fmt: skip
    applied_count = dice.randint(0, len(history))
    # The database contains a change without event, or no row.
    registers = purchases_after(*history[:applied_count])
    row = dice.choice([None, make_purchase(price="7.77")])
    differences = find_differences("ann", [] if row is None else [row], registers, None)
    repairs = []
    for difference in differences:
        kind, version, data = build_repair(difference, 9)
        repairs.append(event(kind, data=msgspec.convert({**msgspec.json.decode(data), "version": version}, OrderLine)))
    later = history[applied_count:]
    mixed = [*repairs, *later]
    dice.shuffle(mixed)
    end = [(purchase.price, purchase.live) for purchase in purchases_after(*history[:applied_count], *mixed)]
    if later:
        newest = later[-1]
        assert end == [(newest.data.price, newest.type != "order.removed")]
    else:
        assert [price for price, live in end if live] == ([] if row is None else ["7.77"])
