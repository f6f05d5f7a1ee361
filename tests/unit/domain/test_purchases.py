"""Purchases and totals lose and repeat nothing in any order of events; the oracle stores all events."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain import purchases as folds
from domain import values
from domain.codec import encode
from domain.errors import UnknownFormat
from domain.events import CHANGED, PLACED, REMOVED, REPAIRED, SNAPSHOT, Event
from domain.purchases import (
    Purchase,
    RecentPurchases,
    apply_event,
    decode_overflow,
    decode_recent,
    newest_purchases,
    overflow_key,
)
from domain.totals import (
    PARTIAL_FORMAT,
    PartialTotals,
    Totals,
    decode_partial,
    decode_totals,
    encode_partial,
    encode_totals,
    merge_partials,
    sum_partials,
    sum_price_changes,
)
from domain.values import microseconds, money, rfc3339
from tests.kit.depth import examples
from tests.kit.makers import at, event
from tests.kit.purchase_model import (
    LIMIT,
    MAX_ENTRIES,
    PURCHASES,
    User,
    assert_equals_oracle,
    change,
    expected_purchases,
    histories,
    histories_of_any_type,
    names,
    newest_events,
    numbers,
    prices,
    purchase_content,
    shuffled_chunks,
    since_1970,
    strength,
    user_after,
    versions,
)

# -- the purchases of a user


@examples(400)
@given(histories_of_any_type(), st.data())
def test_the_same_events_give_the_true_answer_in_any_order_repeated_and_split(history, data):
    user = user_after(data.draw(shuffled_chunks(history)))

    assert_equals_oracle(user, newest_events(history))


@given(histories(), st.integers(1, 4), st.integers(0, 3), st.data())
def test_the_answer_does_not_depend_on_where_a_value_is_cut(history, least, spare, data):
    user = user_after(data.draw(shuffled_chunks(history)), least + spare, least)

    assert_equals_oracle(user, newest_events(history))


@examples(60)
@given(histories(max_size=40))
def test_the_answer_is_true_after_every_single_event(history):
    user = User()
    for count, order_event in enumerate(history, 1):
        user.add([order_event])
        assert_equals_oracle(user, newest_events(history[:count]))


@given(histories_of_any_type(), st.data())
def test_replaying_the_whole_log_into_the_finished_state_changes_no_byte(history, data):
    user = user_after([history])
    value, beside, summed = user.value, dict(user.overflow), user.totals_by_product()

    user.add([order_event for order_event in data.draw(st.permutations(history)) if order_event.type != REPAIRED])

    assert (user.value, user.overflow, user.totals_by_product()) == (value, beside, summed)


@pytest.mark.parametrize("seed", range(6))
def test_thousands_of_random_changes_to_many_more_purchases_than_are_kept_inline_lose_nothing(seed):
    chance = random.Random(seed)
    most, least = chance.choice([(6, 4), (32, 26), (1, 1), (5, 5), (300, 280)])
    chosen = [(chance.choice([number, str(number)]), chance.choice(["tea", "té", "a\x00"])) for number in range(400)]
    user, history = User(most, least), []
    for step in range(3_000):
        order_id, product_name = chance.choice(chosen)
        # Time moves on, with purchases that are moved far back and forth.
        hour = step / 10 if chance.random() < 0.8 else chance.randrange(400)
        kind = chance.choices([PLACED, CHANGED, REMOVED, SNAPSHOT], [6, 2, 3, 1])[0]
        purchase = event(
            kind, order_id=order_id, product_name=product_name, version=chance.randrange(10_000),
            ordered_at=at(hour // 1), price=str(chance.randrange(10**6)),
        )  # fmt: skip
        again = [chance.choice(history)] if history and chance.random() < 0.2 else []
        history.append(purchase)
        user.add([purchase, *again])
        if step % 200 == 0:
            newest = newest_events(history)
            for limit in range(1, least + 1):
                assert [purchase_content(purchase) for purchase in user.newest(limit)] == expected_purchases(
                    newest, limit
                )
    assert_equals_oracle(user, newest_events(history))


def test_a_purchase_is_found_again_wherever_it_went():
    """One purchase is archived, changed, removed, placed again, and moved up and down around the floor."""
    others = [change(number, 1, PLACED, 10 + number) for number in range(1, 12)]
    moves = [
        (PLACED, 0), (CHANGED, 1), (REMOVED, 1), (PLACED, 2), (CHANGED, 30), (CHANGED, 17), (CHANGED, 18),
        (CHANGED, 19), (CHANGED, 0), (REMOVED, 40), (CHANGED, 40), (REMOVED, 0), (PLACED, 21),
    ]  # fmt: skip
    user, history = User(), [change(0, 1, PLACED, 0)]
    user.add(history)
    for version, (kind, hour) in enumerate(moves, 2):
        for order_event in (change(0, version, kind, hour, f"{version}.5"), *others):
            history.append(order_event)
            user.add([order_event])
            assert_equals_oracle(user, newest_events(history))


def test_a_purchase_that_lies_exactly_at_the_floor_is_not_forgotten():
    same_hour = [change(number, 1, PLACED, 1) for number in range(len(PURCHASES))]
    user = user_after([same_hour])

    assert decode_recent(user.value).floor == since_1970(at(1))
    assert_equals_oracle(user, same_hour)

    moved = change(0, 2, CHANGED, 1, "7")
    assert_equals_oracle(user.add([moved]), [moved, *same_hour[1:]])


def test_when_all_of_the_newest_are_removed_the_earlier_ones_are_shown():
    placed = [change(number, 1, PLACED, number) for number in range(len(PURCHASES))]
    user, newest = user_after([placed]), list(placed)
    for number in reversed(range(len(PURCHASES))):
        newest[number] = change(number, 2, REMOVED, number)
        assert_equals_oracle(user.add([newest[number]]), newest)
    assert user.newest() == []
    assert user.totals_by_product() == {}


def test_removals_of_purchases_never_seen_take_no_place_from_the_live_ones():
    removed = [change(number, 9, REMOVED, 100 + number) for number in range(len(PURCHASES) - 1)]
    placed = change(len(PURCHASES) - 1, 1, PLACED, 0)

    for history in ([*removed, placed], [placed, *removed]):
        assert_equals_oracle(user_after([history]), history)
    late = [change(number, 8, PLACED, 200) for number in range(len(PURCHASES) - 1)]
    assert_equals_oracle(user_after([removed, late, [placed]]), [*removed, placed])


def test_as_long_as_all_others_are_removed_the_floor_lies_below_all():
    user = user_after([[change(number, 1, REMOVED, number) for number in range(MAX_ENTRIES + 1)]])

    assert decode_recent(user.value).floor == -(2**63)
    first = event(order_id="first", ordered_at=datetime(1, 1, 1, tzinfo=timezone.utc))
    assert [purchase.order_id for purchase in user.add([first]).newest()] == ["first"]


def test_most_events_of_new_purchases_are_appended_without_a_look_beside():
    user = User(max_entries=300, trim_to=200)

    def never(*_: object) -> None:
        raise AssertionError("nothing was archived yet")

    for number in range(300):
        before = user.value or b""
        user.value = apply_event(b"ann", user.value, event(order_id=number), number, never, never, 300, 200, [])
        assert len(user.value) > len(before)
    assert len(decode_recent(user.value).purchases) == 300


@examples(40)
@given(histories(max_size=20), st.sampled_from([253, 254, 255, 256, 257]))
def test_more_than_255_purchases_are_counted_in_two_bytes(history, count):
    """The number of registers crosses every byte: 255, 256, and the two bytes that stand for it."""
    many = [event(order_id=f"many-{number}", ordered_at=at(-1)) for number in range(count)]
    user = User(max_entries=400, trim_to=300)
    registers = tuple(folds.purchase_from_event(order_event) for order_event in many)
    user.value = folds._encode_recent(None, list(registers))
    user.totals["tea"] = encode_totals(Totals(count, Decimal("19.90") * count))

    user.add(history)

    newest = newest_events(history)
    assert_equals_oracle(user, [*many, *newest])


@pytest.mark.parametrize("count", [15, 16, 255, 256, 65_535])
def test_a_count_is_read_back_whatever_number_it_is(count):
    register = folds.purchase_from_event(event())
    for floor in (None, 0, -1, 2**63 - 1, -(2**63)):
        recent = decode_recent(folds._encode_recent(floor, [register] * count))
        assert (recent.floor, len(recent.purchases)) == (floor, count)


# The bytes of an identity, inside the fields of another purchase, in text and in numbers.
IDENTITY = b"\x99" + encode((5, "c"))[1:]


@pytest.mark.parametrize(
    "decoy",
    [
        {"order_id": "5", "product_name": "\x05\x01c"},
        {"order_id": "o", "product_name": "\x05"},
        {"order_id": "o", "payment_method": "\x05\x01c"},
        {"order_id": "o", "category": "\x05\x01c"},
        {"order_id": 0x9905A163, "ordered_at": at(0)},
        {"order_id": "o", "version": int.from_bytes(b"\x00\x00\x00\x00" + IDENTITY, "big")},
        {"order_id": "o", "ordered_at": at(0) + timedelta(microseconds=0x9905A163)},
    ],
)
def test_the_bytes_of_an_identity_inside_other_fields_are_no_purchase(decoy):
    looked_for = {"order_id": 5, "product_name": "c"}
    for history in ([event(**decoy), event(**looked_for)], [event(**looked_for), event(**decoy)]):
        assert_equals_oracle(user_after([history]), history)


def test_the_identity_in_a_number_leads_to_a_closer_look_and_nothing_else():
    decoy = event(order_id="o", version=int.from_bytes(IDENTITY, "big"))
    assert IDENTITY in user_after([[decoy]]).value

    history = [decoy, event(order_id=5, product_name="c"), event(REMOVED, order_id=5, product_name="c", version=2)]

    assert_equals_oracle(user_after([history]), [history[0], history[2]])


@given(st.lists(st.tuples(st.one_of(st.integers(-(2**63), 2**64 - 1), names), names, versions, prices), max_size=12))
@example([(1, "a", 1, "1"), ("1", "a", 1, "1"), (1, "a\x00", 1, "1"), ("1\x00", "a", 1, "1")])
def test_any_order_id_any_unicode_and_any_price_are_kept_apart_and_exact(changes):
    history = [
        event(order_id=order_id, product_name=name, version=version, price=price)
        for order_id, name, version, price in changes
    ]
    for events in (history, history[::-1]):
        assert_equals_oracle(user_after([events]), newest_events(history))


@given(st.one_of(st.integers(-(2**63), 2**64 - 1), names), names, st.one_of(st.integers(0, 2**64 - 1), names), names)
def test_two_purchases_never_have_the_same_key_beside_the_newest(order_a, name_a, order_b, name_b):
    same = (type(order_a), order_a, name_a) == (type(order_b), order_b, name_b)

    assert (overflow_key(b"ann", order_a, name_a) == overflow_key(b"ann", order_b, name_b)) == same
    # Whoever scans for ann's finds none of a longer id's.
    assert not overflow_key(b"anna", order_a, name_a).startswith(b"ann\x00")


def test_a_late_older_version_changes_nothing():
    user = user_after([[event(version=2, price="2.00")]])
    before = user.value

    assert user.add([event(version=1, price="1.00")]).value is before
    assert [purchase.price for purchase in user.newest()] == ["2.00"]


def test_a_removal_leaves_a_tombstone_that_stops_its_older_versions():
    user = user_after([[event(REMOVED, version=2)], [event(PLACED, version=1)]])

    assert user.newest() == []
    assert [purchase.live for purchase in decode_recent(user.value).purchases] == [False]


def test_of_equal_versions_the_removal_wins():
    placed, removed = event(PLACED, version=1, price="9"), event(REMOVED, version=1, price="1")

    assert user_after([[placed, removed]]).newest() == user_after([[removed, placed]]).newest() == []


def test_a_purchase_ordered_anew_after_its_removal_is_shown_again():
    user = user_after([[event(PLACED, version=1), event(REMOVED, version=2), event(PLACED, version=3)]])

    assert [purchase.version for purchase in user.newest()] == [3]


def test_a_user_without_purchases_has_nothing_to_show():
    assert decode_recent(None) == RecentPurchases(folds.RECENT_FORMAT)
    assert newest_purchases(None, list, 20) == []


def test_the_others_are_not_read_while_the_newest_are_enough():
    user = user_after([[change(number, 1, PLACED, number) for number in range(len(PURCHASES))]])

    def never() -> None:
        raise AssertionError("the newest are enough")

    assert len(newest_purchases(user.value, never, LIMIT)) == LIMIT


def test_integer_order_ids_sort_as_numbers_and_texts_by_code_point():
    ids = [2, 10, -1, "10", "9", "é", "z", "Z", "\U0001f600", "\uffee"]

    user = user_after([[event(order_id=order_id) for order_id in ids]])

    # Text: code points, which is also the order of the UTF-8 bytes; UTF-16 would put the emoji before U+FFEE.
    newest_first = ["\U0001f600", "\uffee", "é", "z", "Z", "9", "10", 10, 2, -1]
    assert [purchase.order_id for purchase in user.newest(20)] == newest_first


def test_products_of_one_order_sort_by_code_point():
    user = user_after([[event(product_name=name) for name in ["tea", "Tea", "té", "teapot"]]])

    assert [purchase.product_name for purchase in user.newest(20)] == ["té", "teapot", "tea", "Tea"]


def test_a_number_and_the_same_digits_as_text_are_two_purchases():
    assert len(user_after([[event(order_id=10), event(order_id="10")]]).newest()) == 2


def test_times_that_differ_by_a_microsecond_are_told_apart():
    first = event(order_id="b", ordered_at=at(0))
    second = event(order_id="a", ordered_at=at(0) + timedelta(microseconds=1))

    assert [purchase.order_id for purchase in user_after([[second, first]]).newest()] == ["a", "b"]


def test_the_same_moment_in_another_zone_is_the_same_moment():
    east = timezone(timedelta(hours=5, minutes=30))

    assert (
        user_after([[event(ordered_at=at(0).astimezone(east))]]).value == user_after([[event(ordered_at=at(0))]]).value
    )


def test_all_that_a_purchase_says_is_remembered():
    user = user_after([[event(payment_method=None, category="drinks", price="0.10", version=3)]])

    [known] = user.newest()
    assert (known.payment_method, known.category, known.price, known.version) == (None, "drinks", "0.10", 3)
    assert rfc3339(known.ordered_at) == "2026-01-31T08:00:00Z"


# -- where a purchase was said


def true_offsets(events: list[Event]) -> dict[tuple, int]:
    """Of each purchase the offset of the first event that says what counts; of a repair the last."""
    found = {}
    for newest in newest_events(events):
        key = (type(newest.data.order_id), newest.data.order_id, newest.data.product_name)
        same = [
            offset for offset, order_event in enumerate(events)
            if (type(order_event.data.order_id), order_event.data.order_id, order_event.data.product_name) == key
            and strength(order_event) == strength(newest)
        ]  # fmt: skip
        found[key] = same[-1] if newest.type == REPAIRED else same[0]
    return found


def offsets_of(user: User) -> dict[tuple, int]:
    known = folds.all_purchases(user.value, user.overflow.values())
    return {(type(purchase.order_id), *purchase.identity): purchase.offset for purchase in known}


@given(histories_of_any_type(), st.data())
def test_of_every_purchase_it_is_known_where_its_newest_version_was_said_first(history, data):
    calls = data.draw(shuffled_chunks(history))

    assert offsets_of(user_after(calls)) == true_offsets([order_event for events in calls for order_event in events])


def test_a_repetition_changes_no_byte_and_a_repair_is_where_it_was_said():
    user = user_after([[event(version=5)]])
    before = user.value
    assert user.add([event(version=5)]).value is before

    user.add([event(REPAIRED, version=5)])

    assert [purchase.offset for purchase in user.newest()] == [2]


@given(histories(max_size=30), histories(max_size=30))
def test_what_was_written_without_offsets_is_read_and_goes_on(before, after):
    """Values of the format before have eight fields to a purchase; the first change writes all of them anew."""
    user = user_after([before])
    if user.value is not None:
        recent = decode_recent(user.value)
        known = [msgspec.structs.astuple(purchase)[:-1] for purchase in recent.purchases]
        user.value = encode((2, recent.floor, known))
    user.overflow = {
        key: encode((1, msgspec.structs.astuple(decode_overflow(value))[:-1])) for key, value in user.overflow.items()
    }
    assert set(offsets_of(user).values()) <= {-1}
    assert_equals_oracle(user, newest_events(before))

    user.add(after)

    assert_equals_oracle(user, newest_events([*before, *after]))
    offsets = true_offsets([*before, *after])
    for key, offset in offsets_of(user).items():
        assert offset == (offsets[key] if offsets[key] >= len(before) else -1)


# -- repairs


def test_a_repair_replaces_the_content_of_an_equal_version():
    # "1.00" sorts below "9.00": without the repair's privilege the content that was there would win.
    user = user_after([[event(version=5, price="9.00")], [event(REPAIRED, version=5, price="1.00")]])

    assert [(purchase.version, purchase.price) for purchase in user.newest()] == [(5, "1.00")]
    assert user.totals_by_product() == {"tea": (1, Fraction(1))}


def test_a_repair_does_not_replace_a_newer_version():
    user = user_after([[event(version=6, price="9.00"), event(REPAIRED, version=5, price="1.00")]])

    assert [(purchase.version, purchase.price) for purchase in user.newest()] == [(6, "9.00")]


def test_after_a_repair_a_late_newer_version_still_counts():
    history = [event(version=5), event(REPAIRED, version=5, price="1.00"), event(CHANGED, version=6, price="3.00")]

    assert [(purchase.version, purchase.price) for purchase in user_after([history]).newest()] == [(6, "3.00")]


def test_a_repair_can_bring_back_a_purchase_that_was_taken_for_removed():
    user = user_after([[event(REMOVED, version=5), event(REPAIRED, version=5)]])

    assert [purchase.live for purchase in user.newest()] == [True]
    assert user.totals_by_product() == {"tea": (1, Fraction("19.90"))}


@given(
    st.lists(st.tuples(numbers, st.sampled_from([PLACED, CHANGED, REMOVED, REPAIRED]), st.integers(0, 4)), max_size=60)
)
def test_repairs_of_equal_versions_that_come_in_order_stand_and_a_replay_of_the_log_ends_there_too(steps):
    history: list[Event] = []
    version_of: dict[int, int] = {}
    last: dict[int, Event] = {}
    user = User()
    for number, kind, hour in steps:
        version_of[number] = version_of.get(number, 0) + (kind != REPAIRED)
        last[number] = change(number, version_of[number], kind, hour, f"{len(history)}.5")
        history.append(last[number])
        assert_equals_oracle(user.add(history[-1:]), list(last.values()))
    assert_equals_oracle(user.add(history), list(last.values()))
    assert_equals_oracle(user_after([[order_event] for order_event in history]), list(last.values()))


# -- the totals of a product


def test_a_changed_price_is_counted_once():
    assert user_after([[event(price="5.00"), event(CHANGED, version=2, price="7.50")]]).totals_by_product() == {
        "tea": (1, Fraction("7.50"))
    }


def test_a_cancelled_purchase_leaves_the_totals_exactly_as_they_were():
    user = user_after([[event(order_id=1, price="0.1"), event(order_id=2, price="0.2")]])
    assert user.totals_by_product() == {"tea": (2, Fraction("0.3"))}

    assert user.add([event(REMOVED, order_id=2, version=2)]).totals_by_product() == {"tea": (1, Fraction("0.1"))}


@given(st.lists(st.tuples(names, st.none() | prices, st.none() | prices), max_size=10))
def test_differences_are_summed_exactly(changes):
    sums = sum_price_changes(Counter(changes))

    for product in {name for name, *_ in changes}:
        mine = [(before, after) for name, before, after in changes if name == product]
        worth = sum(Fraction(after or 0) - Fraction(before or 0) for before, after in mine)
        number = sum((after is not None) - (before is not None) for before, after in mine)
        assert (sums[product].purchases, Fraction(sums[product].revenue)) == (number, worth)
    assert set(sums) == {name for name, *_ in changes}


def test_a_billion_of_the_dearest_purchases_and_one_ten_billionth_are_summed_exactly():
    totals = Totals(10**9, Decimal("999999999999999999999999999.9000000000"))
    dearest = ("tea", None, "999999999999999999.9999999999")
    cheapest = ("tea", None, "0.0000000001")

    totals = decode_totals(encode_totals(totals + sum_price_changes(Counter([dearest, cheapest]))["tea"]))

    # 10^27 - 0.1 and 10^18 - 10^-10 and 10^-10
    assert totals == Totals(10**9 + 2, Decimal("1000000000999999999999999999.9000000000"))


@given(st.integers(0, 2**40), st.decimals(0, 10**40, allow_nan=False, places=10))
def test_totals_survive_the_table(purchases, revenue):
    totals = Totals(purchases, revenue)

    assert decode_totals(encode_totals(totals)) == totals
    read = decode_partial(encode_partial("té\x00", 3, 2**40, totals))
    assert (read.product_name, read.partition, read.position) == ("té\x00", 3, 2**40)
    assert (read.purchases, Decimal(read.revenue)) == (purchases, revenue)
    assert sum_partials(merge_partials(None, [read])) == totals


def test_what_was_never_bought_has_totals_of_nothing():
    assert decode_totals(None) == Totals(0, Decimal(0))


@st.composite
def partials(draw: st.DrawFn) -> list[PartialTotals]:
    """Partial totals of one product from some partitions, one per position."""
    said = {}
    for where in draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=12)):
        said[where] = Totals(draw(st.integers(0, 99)), Decimal(draw(prices)))
    return [decode_partial(encode_partial("tea", *where, totals)) for where, totals in said.items()]


@given(partials(), st.data())
def test_the_newest_partial_of_each_partition_counts_in_any_order_repeated_and_split(said, data):
    value = None
    for events in data.draw(shuffled_chunks(said)):
        value = merge_partials(value, events)

    newest: dict[int, PartialTotals] = {}
    for partial in sorted(said, key=lambda partial: partial.position):
        newest[partial.partition] = partial
    totals = sum_partials(value)
    assert totals.purchases == sum(partial.purchases for partial in newest.values())
    assert Fraction(totals.revenue) == sum((Fraction(partial.revenue) for partial in newest.values()), Fraction(0))


# -- values in the tables


@given(histories())
def test_the_bytes_of_a_user_are_msgpack_that_anyone_can_read(history):
    user = user_after([history])
    if user.value is None:
        return

    number, floor, registers = msgspec.msgpack.decode(user.value)
    assert number == folds.RECENT_FORMAT
    assert decode_recent(user.value) == RecentPurchases(
        number, floor, tuple(Purchase(*purchase) for purchase in registers)
    )
    for value in user.overflow.values():
        number, register = msgspec.msgpack.decode(value)
        assert number == folds.OVERFLOW_FORMAT
        assert decode_overflow(value) == Purchase(*register)


def test_no_value_is_no_purchase():
    assert decode_overflow(None) is None


GOOD_PARTIAL = PartialTotals(PARTIAL_FORMAT, "tea", 0, 1, 1, "1.00")
REGISTER = ("o-1", "tea", 1, True, 0, "1.00", None, None, 7)

#: Reader -> the table it names, and a value of another format number but the same shape.
READERS = {
    "decode_recent": (decode_recent, "by_user", lambda number: (number, None, [REGISTER])),
    "decode_earlier": (decode_overflow, "by_user", lambda number: (number, REGISTER)),
    "decode_totals": (decode_totals, "product_partials", lambda number: (number, 1, "1.00")),
    "decode_partial": (decode_partial, "product-partials", lambda number: (number, "tea", 0, 1, 1, "1.00")),
    "merge_partials": (
        lambda value: merge_partials(value, [GOOD_PARTIAL]),
        "by_product",
        lambda number: (number, {0: (1, 1, "1.00")}),
    ),
    "product_totals": (sum_partials, "by_product", lambda number: (number, {0: (1, 1, "1.00")})),
    "shown": (lambda value: newest_purchases(value, list, 3), "by_user", lambda number: (number, None, [REGISTER])),
    "remember": (lambda value: apply_again(value), "by_user", lambda number: (number, None, [REGISTER])),
}


def apply_again(value: bytes) -> bytes:
    """Apply an event of a stored purchase again, which decodes the value."""
    user = User()
    user.value = value
    return user.add([event(version=2)]).value


@pytest.mark.parametrize("number", [0, 7, 255, 2**40])
@pytest.mark.parametrize("reader", READERS)
def test_another_format_number_is_a_clear_error(reader, number):
    read, table, value = READERS[reader]
    with pytest.raises(UnknownFormat, match=rf"table {table} has format {number}, this version reads .*LATELY_ID"):
        read(encode(value(number)))


STRANGE = {
    "nil": b"\xc0",
    "number": encode(1),
    "text": encode("state"),
    "JSON": b'{"format":1}',
    "object": encode({"format": 1, "registers": []}),
    "array without a format number": encode([]),
    "format is a text": encode(("1", [], None)),
    "never a msgpack byte": b"\xc1\xc1\xc1",
    "the first format": encode((1, [REGISTER], None)),
    "cut": encode((3, None, [REGISTER]))[:-1],
    "one byte too many": encode((3, None, [REGISTER])) + b"\x00",
    "register is a text": encode((3, None, ["o-1"])),
    "register too short": encode((3, None, [REGISTER[:3]])),
    "version is a text": encode((3, None, [(*REGISTER[:2], "1", *REGISTER[3:])])),
    "offset is a text": encode((3, None, [(*REGISTER[:8], "7")])),
    "floor of another shape": encode((3, (1, 2), [REGISTER])),
    "name is not UTF-8": encode((3, None, [REGISTER])).replace(b"tea", b"t\xffa"),
    "nested beyond measure": b"\x93\x03\xc0" + b"\x91" * 100_000 + b"\x01",
}


@pytest.mark.parametrize(
    "reader", ["decode_recent", "decode_earlier", "decode_totals", "merge_partials", "product_totals"]
)
@pytest.mark.parametrize("value", STRANGE.values(), ids=STRANGE)
def test_a_value_of_another_shape_is_a_clear_error(value, reader):
    read, table, _ = READERS[reader]
    with pytest.raises(UnknownFormat, match=rf"(?s)table {table} .*LATELY_ID"):
        read(value)


@given(st.binary(max_size=40))
def test_bytes_of_any_kind_are_read_or_refused_by_name(value):
    for reader in ("decode_recent", "decode_earlier", "decode_totals", "decode_partial", "merge_partials"):
        try:
            READERS[reader][0](value)
        except UnknownFormat as exc:
            assert "LATELY_ID" in str(exc)  # noqa: PT017 - bytes that are a state are fine


@pytest.mark.parametrize("value", [b"", b"\x93", b"\x93\x03", b"\xc0\xc0\xc0\xc0"])
def test_a_value_without_a_known_head_is_a_clear_error_also_where_it_would_be_appended_to(value):
    with pytest.raises(UnknownFormat, match="LATELY_ID"):
        apply_again(value)


# -- amounts and times


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0.00"), ("0E-10", "0.00"), ("1", "1.00"), ("1.5", "1.50"), ("19.90", "19.90"), ("19.900", "19.90"),
        ("0.125", "0.125"), ("0.0000000001", "0.0000000001"), ("100", "100.00"), ("1E+3", "1000.00"),
        ("1000000000999999999999999999.9000000000", "1000000000999999999999999999.90"),
    ],
)  # fmt: skip
def test_an_amount_has_two_decimals_or_as_many_more_as_it_needs(amount, text):
    assert money(Decimal(amount)) == text


@given(prices)
def test_an_amount_keeps_its_worth(price):
    assert Fraction(money(Decimal(price))) == Fraction(price)


@given(histories(max_size=30), st.data())
def test_totals_are_written_with_the_same_digits_whatever_the_order(history, data):
    def digits(user: User) -> dict[str, str]:
        return {name: money(decode_totals(value).revenue) for name, value in user.totals.items()}

    assert digits(user_after(data.draw(shuffled_chunks(history)))) == digits(user_after([newest_events(history)]))


@given(st.datetimes(timezones=st.just(timezone.utc)))
@example(datetime(1, 1, 1, tzinfo=timezone.utc))
@example(datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc))
def test_a_moment_survives_to_the_microsecond(moment):
    text = rfc3339(microseconds(moment))

    assert msgspec.json.encode(values.utc_datetime(microseconds(moment))) == f'"{text}"'.encode()
    assert microseconds(moment) == since_1970(moment)
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
    assert msgspec.json.encode(values.utc_datetime(number)) == f'"{text}"'.encode()
    assert microseconds(datetime.fromisoformat(text.replace("Z", "+00:00"))) == number


@pytest.mark.parametrize(
    "moment", [datetime(1, 1, 1, tzinfo=timezone.utc), datetime(9999, 12, 31, 23, 59, 59, 999_999, timezone.utc)]
)
def test_the_first_and_the_last_moment_are_remembered_and_archived(moment):
    history = [event(order_id=number, ordered_at=moment) for number in range(20)]

    assert_equals_oracle(user_after([history]), history)
