"""An erased user stays erased in any order of events, until a newer purchase arrives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import purchases
from domain.errors import UnreadableEvent
from domain.events import ERASED, PLACED, Event, read_event
from domain.purchases import PriceChange, PurchaseChange, decode_recent
from domain.totals import decode_totals, encode_totals, sum_price_changes
from domain.values import microseconds, parse_rfc3339
from tests.kit.depth import examples
from tests.kit.makers import erasure, event
from tests.kit.purchase_model import (
    MAX_ENTRIES,
    TRIM_TO,
    User,
    assert_equals_oracle,
    assert_invariants,
    histories_of_any_type,
    newest_events,
    shuffled_chunks,
)

#: The highest version that the erasure of the tests can have: its time and a day.
LATEST = microseconds(parse_rfc3339("2026-02-01T08:00:00Z"))


class Erasable(User):
    """A user as tables/by_user stores it, with a count of the purchases for the baskets."""

    def __init__(self, max_entries: int = MAX_ENTRIES, trim_to: int = TRIM_TO) -> None:
        super().__init__(max_entries, trim_to)
        self.live_purchases: Counter[tuple] = Counter()

    def add(self, events: Iterable[Event]) -> Erasable:
        price_changes: list[PriceChange] = []
        changes: list[PurchaseChange] = []
        for order_event in events:
            if order_event.type == ERASED:
                overflow = list(self.overflow.items())
                self.value = purchases.erase(
                    b"ann", self.value, order_event.data.version, overflow, self._write_overflow, price_changes, changes
                )
            else:
                self.value = purchases.apply_event(
                    b"ann",
                    self.value,
                    order_event,
                    0,
                    self.overflow.get,
                    self._write_overflow,
                    self.max_entries,
                    self.trim_to,
                    price_changes,
                    changes,
                )
        for name, added in sum_price_changes(Counter(price_changes)).items():
            self.totals[name] = encode_totals(decode_totals(self.totals.get(name)) + added)
        for *what, sign in changes:
            self.live_purchases[tuple(what)] += sign
        return self


def expected_state(events: Iterable[Event]) -> tuple[list[Event], int]:
    """Return the newest events after the last erasure, and the version of that erasure."""
    erased = max((order_event.data.version for order_event in events if order_event.type == ERASED), default=-1)
    return newest_events(
        [order_event for order_event in events if order_event.type != ERASED and order_event.data.version > erased]
    ), erased


@examples(400)
@given(histories_of_any_type(), st.lists(st.integers(0, 70), max_size=3), st.data())
def test_the_same_events_give_the_same_in_any_order_with_erasures_between(history, erasures, data):
    events = [*history, *map(erasure, erasures)]
    user = Erasable()
    for chunk in data.draw(shuffled_chunks(events)):
        user.add(chunk)

    newest, erased = expected_state(events)
    assert_equals_oracle(user, newest)
    assert purchases.erased_version(user.value) == erased
    bought = Counter(
        (
            "ann",
            order_event.data.product_name,
            order_event.data.category,
            microseconds(order_event.data.ordered_at),
            order_event.data.price,
        )
        for order_event in newest
        if order_event.type != "order.removed"
    )
    assert +user.live_purchases == bought
    assert all(count >= 0 for count in user.live_purchases.values())


@given(histories_of_any_type(), st.integers(0, 70), st.data())
def test_nothing_of_what_was_erased_is_left_in_any_byte(history, version, data):
    marked = [event(data=msgspec.structs.replace(order_event.data, payment_method="my card"), type=order_event.type)
              for order_event in history]  # fmt: skip
    user = Erasable()
    for chunk in data.draw(shuffled_chunks(marked)):
        user.add(chunk)
    user.add([erasure(max([version, *(order_event.data.version for order_event in history)]))])

    assert not user.overflow
    assert b"my card" not in user.value
    assert len(user.value) < 16
    assert_invariants(user)
    assert not +user.live_purchases
    for chunk in data.draw(shuffled_chunks(marked)):
        user.add(chunk)
    assert (user.newest(), user.overflow, len(decode_recent(user.value).purchases)) == ([], {}, 0)


def test_who_buys_again_is_remembered_from_then_on():
    user = Erasable().add([event(version=5), erasure(9), event(version=9)])
    assert user.newest() == []
    user.add([event(version=10, price="3")])
    assert [purchase.price for purchase in user.newest()] == ["3"]
    user.add([event(version=11, type="order.removed"), erasure(4)])
    assert (user.newest(), purchases.erased_version(user.value)) == ([], 9)
    assert purchases.has_order(user.value, list, "o-1")


def test_an_erasure_of_a_user_never_seen_holds_too():
    assert Erasable().add([erasure(9), event(version=9)]).newest() == []


def test_an_erasure_is_read_and_its_rules_are_checked():
    def wire(order_event: Event) -> bytes:
        return msgspec.json.encode(order_event)

    assert read_event(b"ann", wire(erasure(7))) == erasure(7)
    assert read_event(b"ann", wire(erasure(LATEST))) == erasure(LATEST)
    for key, value, reason in [
        (b"bob", wire(erasure(7)), "wrong-key"),
        (b"ann", wire(erasure(-1)), "broken-rule"),
        (b"ann", wire(erasure(2**63)), "broken-rule"),
        (b"ann", wire(erasure(2**63 - 1)), "broken-rule"),
        (b"ann", wire(erasure(LATEST + 1)), "broken-rule"),
        (b"ann", wire(erasure(7)).replace(b"2026-01-31T08:00:00Z", b"2026-01-31T08:00:00"), "broken-rule"),
        (b"ann", wire(erasure(7)).replace(b"2026-01-31T08:00:00Z", b"some day"), "broken-rule"),
        (b".", wire(erasure(7, ".")), "broken-rule"),
        (b"ann", wire(erasure(7)).replace(b'"version":7', b'"version":"7"'), "wrong-type"),
        (b"ann", wire(erasure(7)).replace(b"erasure:1", b"erasure:2"), "unknown-schema"),
        (b"ann", wire(erasure(7)).replace(b"user.erased", b"order.placed"), "unknown-schema"),
        (b"ann", wire(event(PLACED)).replace(b"order.placed", b"user.erased"), "unknown-schema"),
    ]:
        with pytest.raises(UnreadableEvent) as raised:
            read_event(key, value)
        assert raised.value.reason == reason, value
