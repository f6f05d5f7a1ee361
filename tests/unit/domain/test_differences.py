"""What differs is named, and a repair never undoes a change that is newer."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from domain import purchases
from domain.differences import CHANGED, EXTRA, MISSING, PurchaseDifference, build_repair, find_differences, is_unchanged
from domain.events import Event, OrderLine, read_event
from domain.purchases import Purchase
from tests.kit.makers import event, wire


def one(order: str = "o1", **changes: object) -> Purchase:
    said = {"version": 5, "live": True, "ordered_at": 100, "price": "1.50", "payment_method": "card", "category": None}
    return Purchase(order_id=order, product_name="Phone", **{**said, **changes})


@pytest.mark.parametrize(
    ("rows", "registers", "kinds"),
    [
        ([], [], []),
        ([one(version=0)], [one()], []),
        ([one()], [], [MISSING]),
        ([one()], [one(live=False)], [MISSING]),
        ([], [one()], [EXTRA]),
        ([], [one(live=False)], []),
        ([one(price="1.5")], [one()], [CHANGED]),
        ([one(ordered_at=101)], [one()], [CHANGED]),
        ([one(payment_method=None)], [one()], [CHANGED]),
        ([one(category="x")], [one()], [CHANGED]),
        ([one(price="2"), one()], [one()], []),
        ([one(order=1)], [one(order="1")], [EXTRA, MISSING]),
        ([one("o2"), one("o3")], [one("o3"), one("o4")], [EXTRA, MISSING]),
    ],
)
def test_each_difference_is_named(rows: list[Purchase], registers: list[Purchase], kinds: list[str]):
    assert sorted(found.kind for found in find_differences("ann", rows, registers, None)) == kinds


def test_what_was_never_taken_over_is_not_missing():
    assert find_differences("ann", [one(ordered_at=99)], [], horizon=100) == []
    assert [found.kind for found in find_differences("ann", [one(ordered_at=100)], [], horizon=100)] == [MISSING]
    assert [found.kind for found in find_differences("ann", [one(ordered_at=99, price="2")], [one()], 100)] == [CHANGED]


def test_a_purchase_that_the_stream_changed_meanwhile_is_not_decided():
    found = PurchaseDifference(CHANGED, "ann", one(price="2"), one())
    assert is_unchanged(found, [one(), one("o2")])
    assert not is_unchanged(found, [one(version=4)])
    assert not is_unchanged(found, [])
    assert is_unchanged(PurchaseDifference(MISSING, "ann", one(), None), [one("o2")])


def state(*events: Event) -> list[Purchase]:
    value, kept = None, {}
    remember: Callable = purchases.apply_event
    for offset, said in enumerate(events):
        read = read_event(*wire(said))
        value = remember(b"ann", value, read, offset, kept.get, kept.__setitem__, 4, 2, [])
    return purchases.all_purchases(value, [one for one in kept.values() if one is not None])


def said(kind: str, version: int, price: str) -> Event:
    return event(user_id="ann", order_id="o1", product_name="Phone", type=kind, version=version, price=price)


@pytest.mark.parametrize("seed", range(1000))
def test_a_repair_that_races_with_newer_changes_ends_as_the_database_does(seed: int):
    dice = random.Random(seed)
    history = [said(dice.choice(["order.placed", "order.changed", "order.removed"]), version, str(version))
               for version in sorted(dice.sample(range(10, 100), dice.randint(1, 5)))]  # fmt: skip
    seen = dice.randint(0, len(history))
    # The database has what a change said that nobody saw, or nothing.
    known = state(*history[:seen])
    row = dice.choice([None, one(price="7.77")])
    found = find_differences("ann", [] if row is None else [row], known, None)
    repairs = []
    for difference in found:
        kind, version, data = build_repair(difference, 9)
        repairs.append(event(kind, data=msgspec.convert({**msgspec.json.decode(data), "version": version}, OrderLine)))
    later = history[seen:]
    mixed = [*repairs, *later]
    dice.shuffle(mixed)
    end = [(one.price, one.live) for one in state(*history[:seen], *mixed)]
    if later:
        newest = later[-1]
        assert end == [(newest.data.price, newest.type != "order.removed")]
    else:
        assert [price for price, live in end if live] == ([] if row is None else ["7.77"])
