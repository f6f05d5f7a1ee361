"""The JSON of a row is decoded alike by all who read it, and a broken rule is named by its field."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settings import Settings
from app.topics import Topics
from domain.events import REMOVED, OrderEvent, read_event
from source.events import build_records
from source.shop_row import build_removal, decode_row
from tests.kit.makers import SOURCE, row

SETTINGS = Settings()
TOPICS = Topics(SETTINGS)

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=300), st.just("x" * 2000),
    st.lists(st.integers(), max_size=2),
)  # fmt: skip
prices = st.one_of(
    scalars, st.decimals(allow_nan=False, allow_infinity=False).map(str), st.sampled_from(["-0", "1e17", "1e20", "1.0"])
)
times = st.one_of(
    scalars,
    st.datetimes().map(lambda time: f"{time.isoformat()}Z"),
    st.sampled_from(["0000-00-00T00:00:00.000000Z", "2020-00-00T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"]),
)
columns = st.fixed_dictionaries(
    {},
    optional={
        "user_id": scalars,
        "order_id": scalars,
        "product_name": scalars,
        "price": prices,
        "ordered_at": times,
        "payment_method": scalars,
        "category": scalars,
    },
)


@given(columns, st.sampled_from(["order.placed", "order.changed", "order.removed", "order.snapshot"]))
def test_a_row_is_published_if_and_only_if_its_readers_show_it(changed: dict, type: str):
    one = row(type=type, **changed)
    line = decode_row(one.payload, one.version).line
    records = build_records(one, SOURCE, TOPICS, SETTINGS)
    events = [read_event(made.key, made.value) for made in records if made.topic == TOPICS.orders.name]
    if line is not None:
        (event,) = events
        assert isinstance(event, OrderEvent)
        assert (event.type, event.data.price, event.data.ordered_at) == (type, line.price, line.ordered_at)
        assert event.data == line or repr(event.data).partition("(")[2] == repr(line).partition("(")[2]
        return
    assert all(event.type == REMOVED for event in events)
    is_known = build_removal(decode_row(one.payload).fields) is not None
    assert len(events) == (is_known and type != "order.placed")
    assert len(records) == len(events) + (not (events and type == REMOVED))


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"user_id": None}, "user_id must be 1 to 128 bytes"),
        ({"order_id": None}, "order_id must be 1 to 255 bytes"),
        ({"order_id": ""}, "order_id must be 1 to 255 bytes"),
        ({"product_name": "x" * 5000}, "product_name must have 1 to 1024 characters"),
        ({"price": None}, "price must be a decimal number >= 0"),
        ({"price": "-5.00"}, "price must be a decimal number >= 0"),
        ({"ordered_at": None}, "ordered_at must be a date and time"),
        ({"ordered_at": "0000-00-00T00:00:00.000000Z"}, "ordered_at must be a date and time"),
        ({"ordered_at": "2020-00-00T00:00:00.000000Z"}, "ordered_at must be a date and time"),
        ({"payment_method": "x" * 256}, "payment_method must have at most 255"),
        ({"category": ["a"]}, "category must have at most 255"),
    ],
)
def test_a_broken_rule_is_that_of_its_field(changed: dict, rule: str):
    decoded = decode_row(row(**changed).payload)
    assert decoded.line is None
    assert decoded.broken_rule is not None
    assert decoded.broken_rule.startswith(rule)


@pytest.mark.parametrize("payload", ["", "null", "[]", '{"order_id": 017}', b'{"user_id": "\xff"}'])
def test_what_is_no_json_object_is_no_row(payload: str | bytes):
    decoded = decode_row(payload)
    assert (decoded.fields, decoded.line) == ({}, None)
    assert decoded.broken_rule is not None


@pytest.mark.parametrize("price", ["-5", None, "1e30"])
def test_a_removal_takes_over_only_the_identity_of_a_row(price: object):
    fields = json.loads(row(price=price, ordered_at=None, category="x" * 999).payload)
    removal = build_removal(fields)
    assert removal is not None
    assert decode_row(json.dumps(removal)).broken_rule is None
    assert {name: removal[name] for name in ("user_id", "order_id", "product_name")} == {
        "user_id": "ann", "order_id": "o-1", "product_name": "tea",
    }  # fmt: skip
