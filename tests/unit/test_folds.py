"""The folds lose nothing, count nothing twice, and say when they do not know; the oracle is SQL (SQLite)."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import UnknownFormat
from app.folds import (
    NOTHING,
    Recent,
    Sale,
    Totals,
    decode_recent,
    decode_sale,
    encode,
    microseconds,
    money,
    place,
    remember,
    retotal,
    rfc3339,
    sale,
)
from app.models import CHANGED, PLACED, REMOVED, REPAIRED, SNAPSHOT, Event
from tests.makers import at, event

# Chosen so that numbers, texts of digits, case and non-ASCII letters all have to sort right.
PURCHASES = [
    (2, "tea"), (10, "tea"), (10, "Tea"), (10, "té"), (-1, "tea"),
    ("10", "tea"), ("9", "tea"), ("é", "tea"), ("z", "tea"), ("Z", "tea"),
]  # fmt: skip
MORE_THAN_ALL = len(PURCHASES)

keeps = st.integers(1, 4)
hours = st.lists(st.integers(0, 4), min_size=len(PURCHASES), max_size=len(PURCHASES))
numbers = st.integers(0, len(PURCHASES) - 1)
types = st.sampled_from([PLACED, CHANGED, REMOVED, SNAPSHOT])
versions = st.integers(0, 5)
prices = st.from_regex(r"[0-9]{1,18}(\.[0-9]{1,10})?", fullmatch=True)


def change(number: int, version: int, type: str, hour: float, price: str = "1.00") -> Event:
    """A change of one of PURCHASES."""
    order_id, product_name = PURCHASES[number]
    return event(type, order_id=order_id, product_name=product_name, version=version, ordered_at=at(hour), price=price)


@st.composite
def histories_with_fixed_times(draw: st.DrawFn, same_version_same_content: bool = False) -> list[Event]:
    """Events in any order; all versions of a purchase were ordered at the same time."""
    hour_of = draw(hours)
    changes = draw(st.lists(st.tuples(numbers, versions, types, st.sampled_from(["1.00", "2.50"])), max_size=40))
    events = []
    for number, version, type, price in changes:
        price = f"{version}.00" if same_version_same_content else price
        events.append(change(number, version, type, hour_of[number], price))
    return events


@st.composite
def histories_with_changing_times(draw: st.DrawFn) -> list[Event]:
    """Events in any order; a version may move its purchase to another time."""
    changes = draw(st.lists(st.tuples(numbers, versions, types, st.integers(0, 4)), max_size=40))
    return [change(*one) for one in changes]


@st.composite
def once_more_in_any_order(draw: st.DrawFn, events: list[Event]) -> list[list[Event]]:
    """The same events, some of them repeated, shuffled and split into calls."""
    repeated = draw(st.lists(st.sampled_from(events), max_size=10)) if events else []
    shuffled = draw(st.permutations(events + repeated))
    cuts = sorted(draw(st.lists(st.integers(0, len(shuffled)), max_size=6)))
    return [shuffled[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]


def remembered(calls: list[list[Event]], keep: int, state: Recent | None = None) -> Recent:
    """The state after `calls`; between two calls it goes through the table, as it does in a worker."""
    state = NOTHING if state is None else state
    for events in calls:
        state = decode_recent(encode(remember(state, events, keep)))
    return state


def truth(events: list[Event], newest: str = "version DESC, live") -> list[tuple]:
    """What SQL says of `events`: each purchase's newest version, removed ones too, newest purchase first."""
    rows = [
        (
            n, e.data.order_id, e.data.product_name, e.data.ordered_at.isoformat(timespec="microseconds"),
            e.data.version, e.type != REMOVED, e.data.price,
        )
        for n, e in enumerate(events)
    ]  # fmt: skip
    with closing(sqlite3.connect(":memory:")) as shop:
        shop.execute("CREATE TABLE changes (arrived, order_id, product_name, ordered_at, version, live, price)")
        shop.executemany("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        return shop.execute(
            "SELECT ordered_at, order_id, product_name, version, live, price FROM ("
            "  SELECT *, row_number() OVER ("
            f"  PARTITION BY typeof(order_id), order_id, product_name ORDER BY {newest}) AS place"
            "  FROM changes)"
            " WHERE place = 1 ORDER BY ordered_at DESC, order_id DESC, product_name DESC"
        ).fetchall()


def as_sql(registers) -> list[tuple]:
    """Registers as rows of `truth`."""
    return [
        (
            (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=r.ordered_at)).isoformat(
                timespec="microseconds"
            ),
            r.order_id, r.product_name, r.version, int(r.live), r.price,
        )
        for r in registers
    ]  # fmt: skip


# --- the purchases of a user -------------------------------------------------------------------------------


@given(histories_with_fixed_times(), keeps, st.data())
def test_the_same_events_give_the_same_state_in_any_order_repeated_and_split(history, keep, data):
    calls = data.draw(once_more_in_any_order(history))

    assert remembered(calls, keep) == remembered([history], keep)


@given(histories_with_fixed_times(same_version_same_content=True), keeps, st.data())
def test_the_state_is_what_sql_makes_of_the_whole_set(history, keep, data):
    state = remembered(data.draw(once_more_in_any_order(history)), keep)

    everything = truth(history)
    assert as_sql(state.registers) == everything[:keep]
    if len(everything) <= keep:
        assert state.floor is None
    else:
        _, order_id, product_name, *_ = everything[keep]
        assert state.floor[1:] == (order_id, product_name)
        assert place(*state.floor) < state.registers[-1].place


@given(histories_with_fixed_times(), keeps)
def test_replaying_the_whole_log_into_the_finished_state_changes_nothing(history, keep):
    state = remembered([history], keep)

    assert remembered([[one] for one in history], keep, state) == state


@given(histories_with_changing_times(), st.data())
def test_while_nothing_was_forgotten_moved_purchases_too_may_come_in_any_order(history, data):
    calls = data.draw(once_more_in_any_order(history))

    state = remembered(calls, MORE_THAN_ALL)

    assert state == remembered([history], MORE_THAN_ALL)
    assert state.floor is None


def steps(*types: str) -> st.SearchStrategy:
    """Steps: a new version of one purchase (number, type, hour) or a replay of the last n events."""
    one = st.tuples(numbers, st.sampled_from(types), st.integers(0, 6))
    return st.lists(one | st.integers(1, 15), max_size=40)


with_repairs = steps(PLACED, CHANGED, REMOVED, REPAIRED)
without_repairs = steps(PLACED, CHANGED, REMOVED)


def history_in_order(taken: list[tuple | int]):
    """Yield (all events so far, the events to apply now): each purchase's versions come in order."""
    history: list[Event] = []
    version_of: dict[int, int] = {}
    for step in taken:
        if isinstance(step, int):
            yield history, history[-step:]
            continue
        number, type, hour = step
        # A repair sets the content and leaves the version alone.
        version_of[number] = version_of.get(number, 0) + (type != REPAIRED)
        history.append(change(number, version_of[number], type, hour, f"{len(history)}.00"))
        yield history, history[-1:]


def assert_sound(state: Recent, history: list[Event], keep: int) -> None:
    """Complete means exactly SQL's answer; not complete, its beginning and never a wrong purchase."""
    live = [row for row in truth(history, newest="arrived DESC") if row[4]]
    for limit in range(1, keep + 2):
        shown, complete = state.shown(limit)
        if complete:
            assert as_sql(shown) == live[:limit]
        else:
            assert as_sql(shown) == live[: len(shown)]
            assert len(shown) < limit


@settings(max_examples=300)
@given(with_repairs, keeps, st.booleans())
# Forgotten at hour 1, then moved up by a new version, then the last three events once more.
@example([(0, PLACED, 1), (1, PLACED, 3), (2, PLACED, 2), (0, CHANGED, 6), 3], 1, True)
def test_complete_is_never_said_in_vain_also_after_a_replay(taken, keep, split):
    state = NOTHING
    for history, now in history_in_order(taken):
        state = remembered([[one] for one in now] if split else [now], keep, state)
        assert_sound(state, history, keep)


@settings(max_examples=300)
# Without repairs: a repeated event may undo a repair until the repair itself is repeated (acceptance 2.5).
@given(without_repairs, keeps)
# Purchase 0 moved from hour 6 down to 1 and was forgotten; the replay begins with its old version.
@example([(0, PLACED, 6), (0, CHANGED, 1), (1, PLACED, 3), 3], 1)
def test_complete_is_never_said_in_vain_even_in_the_middle_of_a_replay(taken, keep):
    state = NOTHING
    for history, now in history_in_order(taken):
        for one in now:
            state = remembered([[one]], keep, state)
            assert_sound(state, history, keep)


@given(with_repairs, keeps)
@example([(0, PLACED, 6), (0, CHANGED, 1), (1, PLACED, 3)], 1)
def test_replaying_the_whole_log_takes_nothing_away_from_the_answer_also_with_moved_purchases(taken, keep):
    state, history = NOTHING, []
    for history, now in history_in_order(taken):  # noqa: B007 - the last one is the whole history
        state = remembered([now], keep, state)

    replayed = remembered([[one] for one in history], keep, state)

    assert replayed.shown(keep) == state.shown(keep)


@pytest.mark.parametrize("seed", range(3))
def test_the_top_20_of_500_random_orders_and_cancellations_is_sqls(seed):
    chance = random.Random(seed)
    keep, limit, state, history, complete_answers = 32, 20, NOTHING, [], 0
    placed: list[Event] = []
    for version in range(500):
        if placed and chance.random() < 0.3:
            gone = placed.pop(chance.randrange(len(placed)))
            one = event(REMOVED, order_id=gone.data.order_id, ordered_at=gone.data.ordered_at, version=version)
        else:
            one = event(order_id=version, ordered_at=at(version / 10), version=version)
            placed.append(one)
        history.append(one)
        state = remember(state, [one], keep)
        shown, complete = state.shown(limit)
        complete_answers += complete
        if version % 10 == 9:
            live = [row for row in truth(history) if row[4]]
            assert as_sql(shown) == live[: limit if complete else len(shown)]
    # 30 % cancellations of any age must not make "not complete" the rule.
    assert complete_answers > 450

    twice = history + chance.sample(history, len(history))
    assert remembered([twice], keep) == state
    assert remembered([[one] for one in history], keep, state) == state


def test_a_late_older_version_changes_nothing():
    new, old = event(version=2, price="2.00"), event(version=1, price="1.00")

    state = remember(NOTHING, [new], keep=5)

    assert remember(state, [old], keep=5) == state
    assert state.registers[0].price == "2.00"


def test_a_removal_leaves_a_tombstone_that_stops_its_older_versions():
    state = remember(NOTHING, [event(REMOVED, version=2)], keep=5)

    state = remember(state, [event(PLACED, version=1)], keep=5)

    assert state.shown(5) == ([], True)
    assert [r.live for r in state.registers] == [False]


def test_of_equal_versions_the_removal_wins():
    placed, removed = event(PLACED, version=1, price="9"), event(REMOVED, version=1, price="1")

    assert remember(NOTHING, [placed, removed], 5) == remember(NOTHING, [removed, placed], 5)
    assert remember(NOTHING, [placed, removed], 5).shown(5) == ([], True)


def test_a_purchase_ordered_anew_after_its_removal_is_shown_again():
    history = [event(PLACED, version=1), event(REMOVED, version=2), event(PLACED, version=3)]

    shown, complete = remember(NOTHING, history, keep=5).shown(5)

    assert ([r.version for r in shown], complete) == ([3], True)


def test_a_full_list_is_complete_although_older_purchases_were_forgotten():
    state = remember(NOTHING, [event(order_id=n, ordered_at=at(n)) for n in range(10)], keep=3)

    shown, complete = state.shown(3)

    assert [r.order_id for r in shown] == [9, 8, 7]
    assert complete


def test_a_list_that_removals_made_short_says_that_it_is_not_complete():
    placed = [event(order_id=n, ordered_at=at(n)) for n in range(4)]
    removed = event(REMOVED, order_id=3, ordered_at=at(3), version=2)

    state = remember(NOTHING, [*placed, removed], keep=3)

    # MySQL has 2, 1, 0; purchase 0 was forgotten when three were enough.
    assert ([r.order_id for r in state.shown(2)[0]], state.shown(2)[1]) == ([2, 1], True)
    assert ([r.order_id for r in state.shown(3)[0]], state.shown(3)[1]) == ([2, 1], False)


def test_more_than_is_kept_is_never_called_complete():
    state = remember(NOTHING, [event(order_id=n, ordered_at=at(n)) for n in range(4)], keep=3)

    assert state.shown(100)[1] is False


def test_a_user_without_purchases_is_complete():
    assert NOTHING.shown(20) == ([], True)
    assert remember(NOTHING, [], keep=20) == NOTHING


def test_integer_order_ids_sort_as_numbers_and_texts_by_code_point():
    ids = [2, 10, -1, "10", "9", "é", "z", "Z", "\U0001f600", "\uffee"]

    state = remember(NOTHING, [event(order_id=one) for one in ids], keep=20)

    # Text: code points, which is also the order of the UTF-8 bytes; UTF-16 would put the emoji before U+FFEE.
    newest_first = ["\U0001f600", "\uffee", "é", "z", "Z", "9", "10", 10, 2, -1]
    assert [r.order_id for r in state.registers] == newest_first


def test_products_of_one_order_sort_by_code_point():
    names = ["tea", "Tea", "té", "teapot", ""]

    state = remember(NOTHING, [event(product_name=one) for one in names], keep=20)

    assert [r.product_name for r in state.registers] == ["té", "teapot", "tea", "Tea", ""]


def test_a_number_and_the_same_digits_as_text_are_two_purchases():
    state = remember(NOTHING, [event(order_id=10), event(order_id="10")], keep=5)

    assert len(state.registers) == 2


def test_times_that_differ_by_a_microsecond_are_told_apart():
    first = event(order_id="b", ordered_at=at(0))
    second = event(order_id="a", ordered_at=at(0) + timedelta(microseconds=1))

    state = remember(NOTHING, [second, first], keep=5)

    assert [r.order_id for r in state.registers] == ["a", "b"]


def test_the_same_moment_in_another_zone_is_the_same_moment():
    east = timezone(timedelta(hours=5, minutes=30))

    state = remember(NOTHING, [event(ordered_at=at(0).astimezone(east))], keep=5)

    assert state == remember(NOTHING, [event(ordered_at=at(0))], keep=5)


def test_all_that_a_purchase_says_is_remembered():
    bought = event(payment_method=None, category="drinks", price="0.10", version=3)

    state = remember(NOTHING, [bought], keep=5)

    [known] = state.registers
    assert (known.payment_method, known.category, known.price, known.version) == (None, "drinks", "0.10", 3)
    assert rfc3339(known.ordered_at) == "2026-01-31T08:00:00Z"


# --- repairs -----------------------------------------------------------------------------------------------


def test_a_repair_replaces_the_content_of_an_equal_version():
    # "1.00" sorts below "9.00": without the repair's privilege the content that was there would win.
    state = remember(NOTHING, [event(version=5, price="9.00")], keep=5)

    state = remember(state, [event(REPAIRED, version=5, price="1.00")], keep=5)

    assert [(r.version, r.price) for r in state.registers] == [(5, "1.00")]


def test_a_repair_does_not_replace_a_newer_version():
    state = remember(NOTHING, [event(version=6, price="9.00")], keep=5)

    assert remember(state, [event(REPAIRED, version=5, price="1.00")], keep=5) == state


def test_after_a_repair_a_late_newer_version_still_counts():
    state = remember(NOTHING, [event(version=5), event(REPAIRED, version=5, price="1.00")], keep=5)

    state = remember(state, [event(CHANGED, version=6, price="3.00")], keep=5)

    assert [(r.version, r.price) for r in state.registers] == [(6, "3.00")]


def test_a_repair_can_bring_back_a_purchase_that_was_taken_for_removed():
    state = remember(NOTHING, [event(REMOVED, version=5), event(REPAIRED, version=5)], keep=5)

    assert [r.live for r in state.registers] == [True]


def test_replaying_the_log_leaves_the_repair_standing():
    history = [event(version=5, price="9.00"), event(REPAIRED, version=5, price="1.00")]
    state = remember(NOTHING, history, keep=5)

    assert remembered([[one] for one in history], 5, state) == state


def test_a_repair_replaces_an_equal_version_in_the_totals_too():
    known = sale(None, event(version=5, price="9.00"))

    assert sale(known, event(REPAIRED, version=5, price="1.00")).price == "1.00"
    assert sale(known, event(REPAIRED, version=4, price="1.00")) == known


# --- the totals of a product -------------------------------------------------------------------------------


def counted(events: list[Event], table: dict | None = None, totals: Totals | None = None) -> Totals:
    """The totals after `events`, each purchase in a table of its own, as tables/by_product keeps them."""
    table = {} if table is None else table
    totals = Totals() if totals is None else totals
    for one in events:
        before = table.get(one.data.order_id)
        table[one.data.order_id] = after = sale(before, one)
        totals = retotal(totals, before, after)
    return totals


@st.composite
def sales(draw: st.DrawFn) -> list[Event]:
    """Events of one product; equal versions of one purchase have equal prices."""
    changes = draw(st.lists(st.tuples(st.integers(0, 5), versions, types), max_size=30))
    price_of = draw(st.lists(prices, min_size=6, max_size=6))
    return [event(type, order_id=order, version=version, price=price_of[version]) for order, version, type in changes]


@given(sales(), st.data())
def test_totals_are_exact_in_any_order_and_however_often_repeated(history, data):
    calls = data.draw(once_more_in_any_order(history))

    totals = counted([one for events in calls for one in events])

    live = [row for row in truth(history) if row[4]]
    assert totals.purchases == len(live)
    assert Fraction(totals.revenue) == sum((Fraction(row[5]) for row in live), Fraction(0))


@given(st.lists(st.tuples(st.integers(0, 5), versions, types, prices), max_size=30), st.data())
def test_equal_versions_with_other_prices_still_give_one_answer(changes, data):
    history = [event(type, order_id=o, version=v, price=p) for o, v, type, p in changes]
    calls = data.draw(once_more_in_any_order(history))

    assert counted([one for events in calls for one in events]) == counted(history)


@given(sales(), st.data())
def test_totals_counted_anew_from_the_table_after_a_restart_are_the_same(history, data):
    table: dict = {}
    totals = counted(history, table)

    recounted = Totals()
    for value in data.draw(st.permutations(list(table.values()))):
        recounted = retotal(recounted, None, decode_sale(encode(value)))

    assert recounted == totals


def test_totals_counted_anew_after_a_restart_are_written_with_the_same_digits():
    # 2 bought and 1.50 cancelled must not be "2.00" today and "2" after a restart.
    table: dict = {}
    history = [
        event(order_id=1, price="2"),
        event(order_id=2, price="1.50"),
        event(REMOVED, order_id=2, price="1.50", version=2),
    ]
    totals = counted(history, table)

    recounted = Totals()
    for value in table.values():
        recounted = retotal(recounted, None, value)

    assert money(recounted.revenue) == money(totals.revenue) == "2.00"


def test_a_billion_of_the_dearest_purchases_and_one_ten_billionth_are_summed_exactly():
    dearest = Decimal("999999999999999999.9999999999")
    totals = Totals(purchases=10**9, revenue=Decimal("999999999999999999999999999.9000000000"))

    totals = retotal(totals, None, Sale(1, 1, True, str(dearest)))
    totals = retotal(totals, None, Sale(1, 1, True, "0.0000000001"))

    # 10^27 - 0.1 and 10^18 - 10^-10 and 10^-10
    assert totals == Totals(10**9 + 2, Decimal("1000000000999999999999999999.9000000000"))


def test_a_cancelled_purchase_leaves_the_totals_exactly_as_they_were():
    totals = counted([event(order_id=1, price="0.1"), event(order_id=2, price="0.2")])
    assert totals == Totals(2, Decimal("0.3"))

    table = {2: Sale(1, 1, True, "0.2")}
    assert counted([event(REMOVED, order_id=2, version=2)], table, totals) == Totals(1, Decimal("0.1"))


def test_a_changed_price_is_counted_once():
    history = [event(price="5.00"), event(CHANGED, version=2, price="7.50")]

    assert counted(history) == Totals(1, Decimal("7.50"))


def test_a_purchase_that_moves_to_another_user_is_counted_once_whichever_event_comes_first():
    # Two partitions of `orders`, so either of the two can be first in `orders-by-product`.
    removed = event(REMOVED, user_id="ann", version=2)
    placed = event(PLACED, user_id="bob", version=3)
    first = event(PLACED, user_id="ann", version=1)

    assert counted([first, removed, placed]) == Totals(1, Decimal("19.90"))
    assert counted([first, placed, removed]) == Totals(1, Decimal("19.90"))


# --- values in the tables ----------------------------------------------------------------------------------


@given(histories_with_changing_times(), keeps)
def test_a_users_state_survives_the_table(history, keep):
    state = remember(NOTHING, history, keep)

    assert decode_recent(encode(state)) == state


@given(prices, st.integers(0, 2**63 - 1), st.booleans())
def test_a_sale_survives_the_table(price, version, live):
    known = sale(None, event(PLACED if live else REMOVED, version=version, price=price))

    assert decode_sale(encode(known)) == known


def test_no_value_is_no_purchase():
    assert decode_recent(None) == NOTHING
    assert decode_sale(None) is None


@pytest.mark.parametrize("number", [0, 2, 255, 2**40])
def test_another_format_number_is_a_clear_error(number):
    said = rf"has format {number}, this version knows 1: .*LATELY_ID"
    with pytest.raises(UnknownFormat, match=f"by_user {said}"):
        decode_recent(encode((number, [], None)))
    with pytest.raises(UnknownFormat, match=f"by_product {said}"):
        decode_sale(encode((number, 1, True, "1.00")))


REGISTER = (0, "o-1", "tea", 1, True, "1.00", None, None)
STRANGE = {
    "no bytes": b"",
    "nil": b"\xc0",
    "number": encode(1),
    "text": encode("state"),
    "JSON": b'{"format":1}',
    "object": encode({"format": 1, "registers": []}),
    "array without a format number": encode([]),
    "format is a bool": encode((True, [], None)),
    "format is a text": encode(("1", [], None)),
    "never a msgpack byte": b"\xc1",
    "cut": encode((1, [REGISTER], None))[:-1],
    "one byte too many": encode((1, [REGISTER], None)) + b"\x00",
    "register is a text": encode((1, ["o-1"], None)),
    "register too short": encode((1, [REGISTER[:3]], None)),
    "version is a text": encode((1, [(*REGISTER[:3], "1", *REGISTER[4:])], None)),
    "floor of another shape": encode((1, [REGISTER], (1, 2))),
    "name is not UTF-8": encode((1, [REGISTER], None)).replace(b"tea", b"t\xffa"),
    "nested beyond measure": b"\x94\x01\x90\xc0" + b"\x91" * 100_000 + b"\x01",
}


@pytest.mark.parametrize("value", STRANGE.values(), ids=STRANGE)
def test_a_value_of_another_shape_is_a_clear_error(value):
    with pytest.raises(UnknownFormat, match=r"(?s)table by_user .*LATELY_ID"):
        decode_recent(value)


STRANGE_SALES = {
    "no bytes": b"",
    "a user's state": encode(NOTHING),
    "too short": encode((1, 1, True)),
    "price is a number": encode((1, 1, True, 1)),
    "price is not UTF-8": encode((1, 1, True, "1.00")).replace(b"1.00", b"1.\xff0"),
}


@pytest.mark.parametrize("value", STRANGE_SALES.values(), ids=STRANGE_SALES)
def test_a_sale_of_another_shape_is_a_clear_error(value):
    with pytest.raises(UnknownFormat, match=r"(?s)table by_product .*LATELY_ID"):
        decode_sale(value)


@given(st.binary(max_size=40))
def test_bytes_of_any_kind_are_read_or_refused_by_name(value):
    for decode in (decode_recent, decode_sale):
        try:
            decode(value)
        except UnknownFormat as exc:
            assert "LATELY_ID" in str(exc)  # noqa: PT017 - bytes that are a state are fine


# --- times -------------------------------------------------------------------------------------------------


@given(st.datetimes(timezones=st.just(timezone.utc)))
@example(datetime(1, 1, 1, tzinfo=timezone.utc))
@example(datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc))
def test_a_moment_survives_to_the_microsecond(moment):
    text = rfc3339(microseconds(moment))

    assert text.endswith("Z")
    assert datetime.fromisoformat(text[:-1]).replace(tzinfo=timezone.utc) == moment


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (1_769_846_400_500_000, "2026-01-31T08:00:00.500000Z"),
        (-62_135_596_800_000_000, "0001-01-01T00:00:00Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_microseconds_read_as_rfc_3339(number, text):
    assert rfc3339(number) == text
    assert microseconds(datetime.fromisoformat(text.replace("Z", "+00:00"))) == number
