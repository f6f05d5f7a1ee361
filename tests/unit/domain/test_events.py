"""Reading of events: every rule has a reason, and no record causes another error."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from chunks.partition_task import BATCH_BYTES
from domain.errors import UnreadableEvent
from domain.events import (
    ERASED,
    ERASURE_SCHEMA,
    REMOVED,
    REPAIRED,
    SNAPSHOT,
    Erasure,
    Event,
    read_document,
    read_event,
)
from domain.purchases import apply_event, decode_overflow, decode_recent, purchase_from_event
from domain.totals import sum_price_changes
from domain.values import rfc3339
from tests.kit.depth import examples
from tests.kit.makers import event

MISSING = object()


def document(**changes: object) -> bytes:
    """The JSON of a good event of ann's; `changes` replace or remove fields of it or of its data."""
    whole = msgspec.to_builtins(event())
    for name, value in changes.items():
        part = whole if name in whole else whole["data"]
        if value is MISSING:
            del part[name]
        else:
            part[name] = value
    return json.dumps(whole).encode()


def as_dict(order_event: Event) -> dict:
    """All fields of an event; the class that was decoded does not matter."""
    return msgspec.to_builtins(order_event)


def with_raw(name: str, raw: bytes) -> bytes:
    """The JSON of a good event with `raw` bytes for the value of one field."""
    return document(**{name: "PUT-HERE"}).replace(b'"PUT-HERE"', raw)


def with_unknown_field(raw: bytes) -> bytes:
    """The JSON of a good event with one more field, which is to be passed over."""
    return b'{"unknown":' + raw + b"," + document()[1:]


def refusal(value: bytes | None, key: bytes | None = b"ann") -> str:
    """The reason for which a record is refused."""
    with pytest.raises(UnreadableEvent) as caught:
        read_event(key, value)
    assert str(caught.value)
    return caught.value.reason


# --- good events -------------------------------------------------------------------------------------------


def test_a_good_event_is_read_as_it_was_written():
    given_event = event(REMOVED, order_id=17, category="drinks", payment_method=None, version=2**63 - 1)

    assert as_dict(read_event(b"ann", msgspec.json.encode(given_event))) == as_dict(given_event)


def test_unknown_fields_are_passed_over():
    assert read_event(b"ann", with_unknown_field(b'{"nested":[1,2.5,null]}')).data.user_id == "ann"


@pytest.mark.parametrize("change", ["placed", "changed", "removed", "snapshot", "repaired"])
def test_all_five_types_are_known(change):
    assert read_event(b"ann", document(type=f"order.{change}")).type == f"order.{change}"


@pytest.mark.parametrize("name", ["subject", "partitionkey", "traceparent", "payment_method", "category"])
def test_optional_fields_may_be_null_or_missing(name):
    assert read_event(b"ann", document(**{name: None}))
    assert read_event(b"ann", document(**{name: MISSING}))


@pytest.mark.parametrize("price", ["0", "0.00", "19.90", "1.5", "9" * 18, "9" * 18 + "." + "9" * 10, "007.10"])
def test_a_price_is_kept_digit_by_digit(price):
    assert read_event(b"ann", document(price=price)).data.price == price


@pytest.mark.parametrize(
    "user_id",
    [*"a %?#é", "a/b", "a%2Fb", "ann.", "...", "a+b", "Ann", "😀" * 32, "a" * 128, "ä" * 64],
)
def test_a_user_id_of_128_bytes_without_control_characters_is_good(user_id):
    assert read_event(user_id.encode(), document(user_id=user_id)).data.user_id == user_id


@pytest.mark.parametrize("name", ["x", " tea ", "<script>", "é" * 1024, "a\nb", "\x00", ".."])
def test_a_product_name_is_kept_character_by_character(name):
    assert read_event(b"ann", document(product_name=name)).data.product_name == name


@pytest.mark.parametrize("order_id", ["1", 1, 0, -1, 2**63 - 1, 2**64 - 1, -(2**63), "é" * 127, "x" * 255])
def test_an_order_id_is_a_text_or_a_whole_number(order_id):
    assert read_event(b"ann", document(order_id=order_id)).data.order_id == order_id


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-01-31T08:00:00Z", "2026-01-31T08:00:00Z"),
        ("2026-01-31T08:00:00.000001Z", "2026-01-31T08:00:00.000001Z"),
        ("2026-01-31T08:00:00.120000+02:00", "2026-01-31T06:00:00.120000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
    ],
)
def test_a_time_with_a_zone_is_read_to_the_microsecond(text, utc):
    known = purchase_from_event(read_event(b"ann", document(ordered_at=text)))

    assert rfc3339(known.ordered_at) == utc


# --- every reason to refuse --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, b""])
def test_a_record_without_a_value_is_empty(value):
    assert refusal(value) == "empty"


MALFORMED = {
    "not JSON": b"order",
    "blank": b" ",
    "NUL": b"\x00",
    "cut": document()[:-1],
    "two documents": document() * 2,
    "NaN": with_raw("version", b"NaN"),
    "single quotes": document().replace(b'"', b"'"),
    "byte order mark": b"\xef\xbb\xbf" + document(),
    "UTF-16": document().decode().encode("utf-16"),
    "invalid UTF-8 in a field": with_raw("product_name", b'"t\xffa"'),
    "overlong UTF-8": with_raw("product_name", b'"\xc0\xaf"'),
    "raw control character": with_raw("product_name", b'"a\nb"'),
    "lone high surrogate": with_raw("product_name", b'"\\ud800"'),
    "lone low surrogate": with_raw("user_id", b'"\\udc00"'),
    "surrogates the wrong way round": with_raw("product_name", b'"\\udc00\\ud800"'),
}


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_json_is_malformed(value):
    assert refusal(value) == "malformed-json"


MALFORMED_LATER = {
    "cut": b'{"id":1,',
    "cut in a field": b'{"id":1,"type":"order.pla',
    "rubbish after the document": b'{"id":1} and more',
    "invalid UTF-8": b'{"id":1,"type":"\xff"}',
    "lone surrogate": b'{"id":1,"dataschema":"\\ud800"}',
}


@pytest.mark.parametrize("value", MALFORMED_LATER.values(), ids=MALFORMED_LATER)
def test_what_is_malformed_only_after_a_field_of_the_wrong_type_is_refused(value):
    # Which of the two is reported does not matter.
    assert refusal(value) in ("malformed-json", "wrong-type")


DEEP = 100_000
NESTED = {
    "arrays": b"[" * DEEP,
    "in an unknown field": with_unknown_field(b"[" * DEEP + b"]" * DEEP),
    "objects in an unknown field": with_unknown_field(b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    "in data": b'{"data":' * DEEP,
    "after a field of the wrong type": b'{"id":1,"unknown":' + b"[" * DEEP + b"]" * DEEP + b"}",
}


@pytest.mark.parametrize("value", NESTED.values(), ids=NESTED)
def test_json_nested_beyond_measure_is_refused(value):
    assert refusal(value) in ("malformed-json", "wrong-type")


WRONG_TYPE = {
    "null": b"null",
    "array": b"[]",
    "number": b"1",
    "text": b'"order"',
    "empty object": b"{}",
    "data is null": document(data=None),
    "data is missing": document(data=MISSING),
    "data is an array": document(data=[]),
    "type is null": document(type=None),
    "type is missing": document(type=MISSING),
    "type is a number": document(type=1),
    "dataschema is null": document(dataschema=None),
    "dataschema is missing": document(dataschema=MISSING),
    "id is a number": document(id=1),
    "user_id is null": document(user_id=None),
    "user_id is missing": document(user_id=MISSING),
    "user_id is a number": document(user_id=1),
    "order_id is null": document(order_id=None),
    "order_id is a bool": document(order_id=True),
    "order_id is a float": document(order_id=1.5),
    "order_id is 1e3": with_raw("order_id", b"1e3"),
    "order_id is an array": document(order_id=["o-1"]),
    "order_id has 5,000 digits": with_raw("order_id", b"1" * 5000),
    "product_name is null": document(product_name=None),
    "price is a float": document(price=19.9),
    "price is an integer": document(price=19),
    "price is null": document(price=None),
    "version is a bool": document(version=True),
    "version is a text": document(version="1"),
    "version is a float": document(version=1.0),
    "version is null": document(version=None),
    "version is missing": document(version=MISSING),
    "version has 5,000 digits": with_raw("version", b"1" * 5000),
    "payment_method is a number": document(payment_method=1),
    "ordered_at is null": document(ordered_at=None),
    "ordered_at is a number": document(ordered_at=1769846400),
    "ordered_at has no zone": document(ordered_at="2026-01-31T08:00:00"),
    "ordered_at has no time": document(ordered_at="2026-01-31"),
    "ordered_at is in year 0000": document(ordered_at="0000-01-01T00:00:00Z"),
    "ordered_at is MySQL's zero date": document(ordered_at="0000-00-00T00:00:00.000000Z"),
    "ordered_at is in year 10000": document(ordered_at="10000-01-01T00:00:00Z"),
    "ordered_at is no day": document(ordered_at="2026-02-30T00:00:00Z"),
    "ordered_at is a leap second": document(ordered_at="2016-12-31T23:59:60Z"),
    "ordered_at is a word": document(ordered_at="yesterday"),
    "ordered_at is empty": document(ordered_at=""),
}


@pytest.mark.parametrize("value", WRONG_TYPE.values(), ids=WRONG_TYPE)
def test_a_field_of_the_wrong_type_is_refused(value):
    assert refusal(value) == "wrong-type"


def test_an_erasure_whose_data_has_the_fields_of_an_order_is_an_erasure() -> None:
    event = read_event(b"ann", document(type=ERASED, dataschema=ERASURE_SCHEMA, version=7))
    assert event.data == Erasure("ann", 7)


@pytest.mark.parametrize("type", ["", "order", "order.Placed", "order.placed ", "order.erased", "x" * 100_000])
def test_an_unknown_type_is_refused(type):
    assert refusal(document(type=type)) == "unknown-type"


@pytest.mark.parametrize("schema", ["", "urn:lately:schema:order:2", "urn:lately:schema:order:1 "])
def test_an_unknown_schema_is_refused(schema):
    assert refusal(document(dataschema=schema)) == "unknown-schema"


def test_an_event_of_a_future_version_is_called_that_however_its_fields_changed():
    future = document(dataschema="urn:lately:schema:order:2", price={"amount": 1990, "currency": "EUR"})

    assert refusal(future) == "unknown-schema"
    assert refusal(document(type="order.refunded", user_id=MISSING)) == "unknown-type"


BROKEN = {
    "user_id is empty": {"user_id": ""},
    "user_id is one dot": {"user_id": "."},
    "user_id is two dots": {"user_id": ".."},
    "user_id has 129 bytes": {"user_id": "a" * 129},
    "user_id has 65 letters of two bytes": {"user_id": "ä" * 65},
    "user_id has a NUL": {"user_id": "a\x00b"},
    "user_id has a line feed": {"user_id": "ann\n"},
    "user_id has a tab": {"user_id": "\tann"},
    "user_id has a DEL": {"user_id": "ann\x7f"},
    "user_id has a C1 control": {"user_id": "ann\x85"},
    "order_id is empty": {"order_id": ""},
    "order_id has 256 bytes": {"order_id": "x" * 256},
    "order_id has 128 letters of two bytes": {"order_id": "é" * 128},
    "order_id has a NUL": {"order_id": "o\x001"},
    "order_id has 300 digits": {"order_id": 10**299},
    # No integer column holds more than 64 bits, and neither does a value of the tables.
    "order_id is just above 64 bits": {"order_id": 2**64},
    "order_id is just below 64 bits": {"order_id": -(2**63) - 1},
    "order_id has 31 digits": {"order_id": 10**30},
    "product_name is empty": {"product_name": ""},
    "product_name has 1,025 characters": {"product_name": "x" * 1025},
    "product_name has 5,000 characters": {"product_name": "x" * 5000},
    "price is negative": {"price": "-1"},
    "price is a negative zero": {"price": "-0.00"},
    "price has an exponent": {"price": "1e30"},
    "price has 31 digits": {"price": "1" + "0" * 30},
    "price is NaN": {"price": "NaN"},
    "price is infinite": {"price": "Infinity"},
    "price is empty": {"price": ""},
    "price has a sign": {"price": "+1"},
    "price has a blank": {"price": " 1"},
    "price has a line feed": {"price": "1\n"},
    "price has a comma": {"price": "1,50"},
    "price has an underscore": {"price": "1_000"},
    "price has a currency": {"price": "1 EUR"},
    "price begins with the point": {"price": ".5"},
    "price ends with the point": {"price": "5."},
    "price has Arabic digits": {"price": "١٩"},
    "price has 19 digits before the point": {"price": "1" + "0" * 18},
    "price has 11 digits after the point": {"price": "0.00000000001"},
    "version is negative": {"version": -1},
    "version is 2^63": {"version": 2**63},
    "version has 31 digits": {"version": 10**30},
}


@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_is_refused_and_its_field_named(changes):
    [name] = changes
    user_id = changes.get("user_id", "ann")

    with pytest.raises(UnreadableEvent, match=f"^{name} must") as caught:
        read_event(user_id.encode(), document(**changes))

    assert caught.value.reason == "broken-rule"


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-01:00"])
def test_a_time_that_utc_cannot_say_is_refused(text):
    # In UTC these are the years 0 and 10000.
    assert refusal(document(ordered_at=text)) in ("wrong-type", "broken-rule")


@pytest.mark.parametrize("key", [None, b"", b"Ann", b"ann ", b"bob", b"ann\x00", "ann".encode("utf-16")])
def test_a_record_under_another_key_is_refused(key):
    assert refusal(document(), key) == "wrong-key"


def test_the_key_is_compared_byte_by_byte():
    composed, decomposed = "é", "e\u0301"

    assert refusal(document(user_id=composed), decomposed.encode()) == "wrong-key"
    assert read_event(composed.encode(), document(user_id=composed)).data.user_id == composed


# --- nothing else ever happens -----------------------------------------------------------------------------


REASONS = {
    "empty",
    "malformed-json",
    "wrong-type",
    "unknown-type",
    "unknown-schema",
    "broken-rule",
    "wrong-key",
}


def assert_usable(order_event: Event) -> None:
    """An accepted event goes the whole way: a key, a URL, both tables, an answer."""
    user_id = order_event.data.user_id
    assert 1 <= len(user_id.encode()) <= 128
    # As a browser would: the URL is normalised, so "." and ".." would vanish from the path.
    url = URL(f"http://localhost/v1/users/{quote(user_id, safe='')}/purchases")
    assert url.parts == ("/", "v1", "users", user_id, "purchases")
    state, beside, differences = None, {}, []
    # The second time it is compared with the first, and kept beside another one.
    newer = msgspec.structs.replace(order_event, data=msgspec.structs.replace(order_event.data, product_name="another"))
    for told in (order_event, newer, order_event):
        state = apply_event(user_id.encode(), state, told, 0, beside.get, beside.__setitem__, 1, 1, differences)
    known = [*decode_recent(state).purchases, *map(decode_overflow, beside.values())]
    assert purchase_from_event(order_event, 0) in known
    assert rfc3339(purchase_from_event(order_event).ordered_at).endswith("Z")
    assert sum_price_changes(Counter(differences)).keys() == {order_event.data.product_name, "another"}


@pytest.mark.parametrize("name", ["product_name", "order_id", "payment_method", "category"])
def test_32_of_the_largest_purchases_that_are_accepted_fit_into_one_record_of_the_changelog(name):
    state, beside = None, {}
    # The lengths in characters and in bytes that the rules speak of.
    for number, length in itertools.product(range(32), [60, 128, 255, 1024, 60_000]):
        purchase = {"order_id": str(number), "version": length, name: f"{number:02}".ljust(length, "\U0001f600")}
        with contextlib.suppress(UnreadableEvent):
            order_event = read_event(b"ann", document(**purchase))
            state = apply_event(b"ann", state, order_event, 2**62, beside.get, beside.__setitem__, 32, 26, [])

    # Kafka's default limit of one batch is 1 MiB; a value above it would stop the partition for good.
    assert len(decode_recent(state).purchases) >= 26
    assert len(state) < BATCH_BYTES


def read_or_refuse(value: bytes) -> None:
    """Read a record under its own key, as far as it has one."""
    try:
        user_id = json.loads(value)["data"]["user_id"].encode()
    except Exception:
        user_id = b"ann"
    try:
        order_event = read_event(user_id, value)
    except UnreadableEvent as exc:
        reason, told = exc.reason, str(exc)
    else:
        assert_usable(order_event)
        # The quick way for plain events reads what the careful one reads.
        assert as_dict(order_event) == as_dict(read_document(value))
        return
    assert reason in REASONS
    if reason != "wrong-key":
        with pytest.raises(UnreadableEvent) as caught:
            read_document(value)
        assert (caught.value.reason, str(caught.value)) == (reason, told)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(value):
    read_or_refuse(value)


@examples(400)
@given(st.integers(0, len(document())), st.integers(0, 20), st.binary(max_size=6))
def test_a_good_event_with_damaged_bytes_is_read_or_refused(begin, length, damage):
    good = document()

    read_or_refuse(good[:begin] + damage + good[begin + length :])


looks_right = ["order.placed", "ann", "1.00", "2026-01-31T08:00:00Z", "0001-01-01T00:00:00+01:00"]
leaves = [
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(looks_right),
]
anything = st.recursive(
    st.one_of(leaves),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from([*msgspec.to_builtins(event()), *msgspec.to_builtins(event())["data"]])


@given(anything)
def test_any_json_is_read_or_refused(value):
    read_or_refuse(json.dumps(value).encode())


@examples(400)
@given(st.dictionaries(fields, st.one_of(anything, st.just(MISSING)), max_size=3))
@example({"order_id": 2**64})
@example({"ordered_at": "0001-01-01T00:00:00+01:00"})
def test_a_good_event_with_other_fields_is_read_or_refused(changes):
    # `data` last: a field of it cannot be changed once it is something else.
    changes = {name: changes[name] for name in sorted(changes, key=lambda name: name == "data")}
    read_or_refuse(document(**changes))


@examples(400)
@given(
    user_id=st.text(max_size=140),
    order_id=st.one_of(st.text(max_size=4), st.integers()),
    product_name=st.text(max_size=4),
    price=st.one_of(st.from_regex(r"[0-9]{1,19}(\.[0-9]{0,11})?"), st.text(max_size=4)),
    version=st.integers(-1, 2**64),
    type=st.sampled_from([REMOVED, SNAPSHOT, REPAIRED]),
)
def test_whatever_is_accepted_goes_the_whole_way(user_id, order_id, product_name, price, version, type):
    read_or_refuse(
        msgspec.json.encode(
            event(
                type,
                user_id=user_id,
                order_id=order_id,
                product_name=product_name,
                price=price,
                version=version,
            )
        )
    )
