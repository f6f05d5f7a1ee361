"""A user who was erased stays erased, whatever comes again in whatever order, until something newer happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import purchases
from domain.errors import UnreadableEvent
from domain.events import ERASED, PLACED, Event, read_event
from domain.purchases import PriceChange, PurchaseChange, decode_recent
from domain.totals import decode_totals, encode_totals, sum_price_changes
from domain.values import microseconds
from tests.kit.makers import erasure, event
from tests.kit.purchase_model import (
    LEAST,
    MOST,
    User,
    assert_sound,
    assert_true,
    histories_of_any_type,
    once_more_in_any_order,
    truth,
)


class Erasable(User):
    """A user as tables/by_user keeps one; counts what follows for the baskets."""

    def __init__(self, most: int = MOST, least: int = LEAST) -> None:
        super().__init__(most, least)
        self.bought: Counter[tuple] = Counter()

    def add(self, events: Iterable[Event]) -> Erasable:
        differences: list[PriceChange] = []
        changes: list[PurchaseChange] = []
        for one in events:
            if one.type == ERASED:
                others = list(self.beside.items())
                self.value = purchases.erase(
                    b"ann", self.value, one.data.version, others, self._forget, differences, changes
                )
            else:
                self.value = purchases.apply_event(
                    b"ann",
                    self.value,
                    one,
                    0,
                    self.beside.get,
                    self._forget,
                    self.most,
                    self.least,
                    differences,
                    changes,
                )
        for name, added in sum_price_changes(Counter(differences)).items():
            self.totals[name] = encode_totals(decode_totals(self.totals.get(name)) + added)
        for *what, sign in changes:
            self.bought[tuple(what)] += sign
        return self


def remembered(events: Iterable[Event]) -> tuple[list[Event], int]:
    """The newest event of each purchase of those that are newer than any erasure; and that erasure's version."""
    erased = max((one.data.version for one in events if one.type == ERASED), default=-1)
    return truth([one for one in events if one.type != ERASED and one.data.version > erased]), erased


@settings(max_examples=400)
@given(histories_of_any_type(), st.lists(st.integers(0, 70), max_size=3), st.data())
def test_the_same_events_give_the_same_in_any_order_with_erasures_between(history, erasures, data):
    events = [*history, *map(erasure, erasures)]
    user = Erasable()
    for chunk in data.draw(once_more_in_any_order(events)):
        user.add(chunk)

    newest, erased = remembered(events)
    assert_true(user, newest)
    assert purchases.erased_version(user.value) == erased
    bought = Counter(
        ("ann", one.data.product_name, one.data.category, microseconds(one.data.ordered_at), one.data.price)
        for one in newest
        if one.type != "order.removed"
    )
    assert +user.bought == bought
    assert all(count >= 0 for count in user.bought.values())


@given(histories_of_any_type(), st.integers(0, 70), st.data())
def test_nothing_of_what_was_erased_is_left_in_any_byte(history, version, data):
    marked = [event(data=msgspec.structs.replace(one.data, payment_method="my card"), type=one.type)
              for one in history]  # fmt: skip
    user = Erasable()
    for chunk in data.draw(once_more_in_any_order(marked)):
        user.add(chunk)
    user.add([erasure(max([version, *(one.data.version for one in history)]))])

    assert not user.beside
    assert b"my card" not in user.value
    assert len(user.value) < 16
    assert_sound(user)
    assert not +user.bought
    for chunk in data.draw(once_more_in_any_order(marked)):
        user.add(chunk)
    assert (user.shown(), user.beside, len(decode_recent(user.value).purchases)) == ([], {}, 0)


def test_who_buys_again_is_remembered_from_then_on():
    user = Erasable().add([event(version=5), erasure(9), event(version=9)])
    assert user.shown() == []
    user.add([event(version=10, price="3")])
    assert [one.price for one in user.shown()] == ["3"]
    user.add([event(version=11, type="order.removed"), erasure(4)])
    assert (user.shown(), purchases.erased_version(user.value)) == ([], 9)
    assert purchases.has_order(user.value, list, "o-1")


def test_an_erasure_of_a_user_never_seen_holds_too():
    assert Erasable().add([erasure(9), event(version=9)]).shown() == []


def test_an_erasure_is_read_and_its_rules_are_checked():
    def wire(one: Event) -> bytes:
        return msgspec.json.encode(one)

    assert read_event(b"ann", wire(erasure(7))) == erasure(7)
    for key, value, reason in [
        (b"bob", wire(erasure(7)), "wrong-key"),
        (b"ann", wire(erasure(-1)), "broken-rule"),
        (b"ann", wire(erasure(2**63)), "broken-rule"),
        (b".", wire(erasure(7, ".")), "broken-rule"),
        (b"ann", wire(erasure(7)).replace(b'"version":7', b'"version":"7"'), "wrong-type"),
        (b"ann", wire(erasure(7)).replace(b"erasure:1", b"erasure:2"), "unknown-schema"),
        (b"ann", wire(erasure(7)).replace(b"user.erased", b"order.placed"), "unknown-schema"),
        (b"ann", wire(event(PLACED)).replace(b"order.placed", b"user.erased"), "unknown-schema"),
    ]:
        with pytest.raises(UnreadableEvent) as raised:
            read_event(key, value)
        assert raised.value.reason == reason, value
