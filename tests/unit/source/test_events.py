"""From a row of the outbox to the record to publish, and from an age or a time to the moment meant by it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from app.errors import EX_USAGE, BadSource
from app.settings import Settings
from app.topics import Topics
from domain.events import CHANGED, PLACED, REMOVED, SNAPSHOT, read_event
from source.events import OutgoingRecord, build_record, build_records
from source.outbox_row import OutboxRow
from source.setup import parse_since
from tests.kit.makers import EVENT_ID, SOURCE, TIME, row

SETTINGS = Settings(topic_prefix="eu-", source_outbox="changes")
ERRORS = {
    f"__lately.errors.{name}"
    for name in (
        "topic", "partition", "offset", "exception", "message", "stacktrace", "attempts", "first_failed_at"
    )
}  # fmt: skip
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def published(one: OutboxRow) -> OutgoingRecord:
    """What the source publishes for a row."""
    return build_record(one, SOURCE, Topics(SETTINGS), SETTINGS)


# --- good rows ---------------------------------------------------------------------------------------------


def test_a_row_becomes_a_cloudevent_under_the_users_key():
    made = published(row(id=8, version=8, type=CHANGED, category="drinks"))

    assert made.topic == "eu-orders"
    assert made.key == b"ann"
    assert made.headers == [("content-type", b"application/cloudevents+json")]
    assert json.loads(made.value) == {
        "specversion": "1.0",
        "id": EVENT_ID,
        "source": SOURCE,
        "type": "order.changed",
        "time": TIME,
        "subject": "o-1",
        "partitionkey": "ann",
        "datacontenttype": "application/json",
        "dataschema": "urn:lately:schema:order:1",
        "data": {
            "user_id": "ann",
            "order_id": "o-1",
            "product_name": "tea",
            "price": "19.90",
            "ordered_at": "2026-01-31T08:00:00.000000Z",
            "payment_method": "card",
            "category": "drinks",
            "version": 8,
        },
    }


@pytest.mark.parametrize("type", [PLACED, CHANGED, REMOVED, SNAPSHOT])
def test_what_the_source_publishes_the_agent_can_read(type):
    made = published(row(type=type))

    assert read_event(made.key, made.value).type == type


def test_an_integer_order_id_stays_a_number_and_its_subject_is_text():
    document = json.loads(published(row(order_id=17)).value)

    assert document["data"]["order_id"] == 17
    assert document["subject"] == "17"


def test_the_version_is_the_rows_and_not_the_payloads():
    # A snapshot's version is not its id; a shop's column cannot set it.
    smuggled = row().payload.replace("{", '{"version":99,', 1)

    assert json.loads(published(row(smuggled, id=9, version=3)).value)["data"]["version"] == 3


def test_a_traceparent_is_handed_on_and_otherwise_absent():
    assert json.loads(published(row(traceparent=TRACE)).value)["traceparent"] == TRACE
    assert "traceparent" not in json.loads(published(row()).value)


@pytest.mark.parametrize(
    "traceparent",
    [
        "", "00", "garbage", TRACE[:-1], TRACE + "0", TRACE.upper(), "ff" + TRACE[2:], f"00-{'0' * 32}-{TRACE[36:]}",
        f"{TRACE[:36]}{'0' * 16}-01", TRACE.replace("-", "_"), TRACE + "\n", TRACE.replace("0", "\u0660"),
    ],
)  # fmt: skip
def test_what_is_no_traceparent_is_left_out_and_the_event_published(traceparent):
    made = published(row(traceparent=traceparent))
    assert made.topic == "eu-orders"
    assert "traceparent" not in json.loads(made.value)


@pytest.mark.parametrize("user_id", ["a/b", "😀", "é", "e\u0301", "%25", "ann."])
def test_the_key_is_the_users_bytes_as_stored(user_id):
    assert published(row(user_id=user_id)).key == user_id.encode()


def test_names_are_published_as_stored_without_trimming_or_folding():
    made = published(row(product_name="  Straße\t\U0001f600 "))

    assert read_event(made.key, made.value).data.product_name == "  Straße\t\U0001f600 "


def test_the_smallest_and_the_largest_price_are_published_digit_by_digit():
    for price in ("0.00", "999999999999999999.9999999999"):
        assert json.loads(published(row(price=price)).value)["data"]["price"] == price


@pytest.mark.parametrize(
    ("spelling", "price"),
    [
        ("19.900000000000000000000000000000", "19.90"),
        ("19.9000000000000000", "19.90"),
        ("0000000000000000000000000019.90", "19.90"),
        ("1e17", "100000000000000000.00"),
        ("-0", "0.00"),
    ],
)
def test_of_a_price_the_value_counts_and_not_its_spelling(spelling: str, price: str):
    made = published(row(price=spelling, category="drinks"))
    event = read_event(made.key, made.value)
    assert (event.data.price, event.data.category) == (price, "drinks")


# --- rows that cannot be published -------------------------------------------------------------------------


def errors(made: OutgoingRecord) -> dict[str, str]:
    """The error headers of a dead letter, by their names without the prefix."""
    assert made.topic == "eu-orders-dead"
    assert {name for name, _ in made.headers} == ERRORS
    assert len(made.headers) == len(ERRORS)
    return {name.removeprefix("__lately.errors."): value.decode() for name, value in made.headers}


POISON = {
    "no user": (row(user_id=None), "wrong-type", "user_id", None),
    "empty user": (row(user_id=""), "broken-rule", "user_id", b""),
    "user of 129 bytes": (row(user_id="a" * 129), "broken-rule", "user_id", b"a" * 129),
    "user with a NUL": (row(user_id="a\x00"), "broken-rule", "user_id", b"a\x00"),
    "negative price": (row(price="-0.01"), "broken-rule", "price", b"ann"),
    "price 1e30 of a DOUBLE": (row(price="1e30"), "broken-rule", "price", b"ann"),
    "price 1e30 of a DECIMAL": (row(price="1" + "0" * 30 + ".00"), "broken-rule", "price", b"ann"),
    "no price": (row(price=None), "wrong-type", "price", b"ann"),
    "name of 5,000 characters": (row(product_name="x" * 5000), "broken-rule", "product_name", b"ann"),
    "no name": (row(product_name=None), "wrong-type", "product_name", b"ann"),
    "date that MySQL shows as NULL": (row(ordered_at=None), "wrong-type", "ordered_at", b"ann"),
    "zero date": (row(ordered_at="0000-00-00T00:00:00.000000Z"), "wrong-type", "ordered_at", b"ann"),
    "30 February": (row(ordered_at="2026-02-30T00:00:00.000000Z"), "wrong-type", "ordered_at", b"ann"),
    "no order": (row(order_id=None), "wrong-type", "order_id", b"ann"),
    "empty order": (row(order_id=""), "broken-rule", "order_id", b"ann"),
    "order id above 64 bits": (row(order_id=2**64), "broken-rule", "order_id", b"ann"),
    "unknown type": (row(type="order.lost"), "unknown-type", "order.lost", b"ann"),
}


@pytest.mark.parametrize(("poison", "reason", "named", "key"), POISON.values(), ids=POISON)
def test_a_poison_row_becomes_a_dead_letter_that_says_why(poison, reason, named, key):
    made = published(poison)

    found = errors(made)
    assert found["exception"] == reason
    assert named in found["message"]
    assert found["stacktrace"].startswith("Traceback ")
    assert f"UnreadableEvent: {found['message']}" in found["stacktrace"]
    assert (found["topic"], found["partition"], found["offset"]) == ("changes", "", "7")
    assert found["attempts"] == "1"
    assert datetime.fromisoformat(found["first_failed_at"].replace("Z", "+00:00")).tzinfo is not None
    assert made.key == key
    # All that the row held is kept, for `dlq retry`.
    kept = json.loads(made.value)
    assert kept["data"] == {**json.loads(poison.payload), "version": 7}
    assert kept["id"] == EVENT_ID


NOT_AN_OBJECT = {
    "empty": "",
    "cut": '{"user_id":"ann"',
    "not JSON": "ann",
    "null": "null",
    "array": "[]",
    "lone surrogate": '{"user_id":"\\ud800"}',
    "nested beyond measure": "[" * 100_000 + "]" * 100_000,
}


@pytest.mark.parametrize("payload", NOT_AN_OBJECT.values(), ids=NOT_AN_OBJECT)
def test_a_payload_that_cannot_be_read_is_kept_as_it_is(payload):
    made = published(row(payload))

    assert errors(made)["exception"] in ("malformed-json", "wrong-type")
    assert made.value == payload.encode()
    assert made.key is None


@pytest.mark.parametrize("user_id", [17, True, ["ann"], {"name": "ann"}])
def test_a_user_id_that_is_no_text_makes_no_key(user_id):
    made = published(row(user_id=user_id))

    assert errors(made)["exception"] == "wrong-type"
    assert made.key is None


# --- rows that cannot be shown any more --------------------------------------------------------------------

BROKEN = [
    {"price": "-5.00"},
    {"price": None},
    {"ordered_at": None},
    {"ordered_at": "0000-00-00T00:00:00.000000Z"},
    {"payment_method": "x" * 256},
    {"category": 7},
]


def all_published(one: OutboxRow) -> list[OutgoingRecord]:
    """All that the source publishes for a row."""
    return build_records(one, SOURCE, Topics(SETTINGS), SETTINGS)


@pytest.mark.parametrize("type", [CHANGED, SNAPSHOT])
@pytest.mark.parametrize("columns", BROKEN)
def test_a_purchase_whose_row_breaks_a_rule_is_taken_back(type: str, columns: dict):
    letter, removal = all_published(row(type=type, traceparent=TRACE, **columns))
    assert errors(letter)["exception"] in ("broken-rule", "wrong-type")
    event = read_event(removal.key, removal.value)
    assert removal.topic == "eu-orders"
    assert (event.type, event.data.version, event.time, event.traceparent) == (REMOVED, 7, TIME, TRACE)
    assert (event.data.user_id, event.data.order_id, event.data.product_name) == ("ann", "o-1", "tea")


def test_a_repeated_row_takes_a_purchase_back_by_the_same_event():
    bad = row(type=CHANGED, price="-5.00")
    (first, second) = (all_published(bad)[1] for _ in range(2))
    assert first == second
    event = read_event(first.key, first.value)
    assert event.id == first.event_id != EVENT_ID
    assert event.id != json.loads(all_published(row(type=CHANGED, price="-5.00", event_id="other"))[1].value)["id"]


@pytest.mark.parametrize(
    "columns", [{"user_id": None}, {"user_id": "."}, {"order_id": ""}, {"product_name": "x" * 5000}, {"order_id": 1.5}]
)
def test_without_a_valid_identity_nothing_can_be_taken_back(columns: dict):
    (letter,) = all_published(row(type=CHANGED, **columns))
    errors(letter)


#: Readable as far as the envelope needs it, but not as a whole.
SURROGATE = '{"user_id":"ann","order_id":"o","product_name":"tea","price":"1e2","unknown":"\\ud800"}'


@pytest.mark.parametrize("payload", ["", "null", '{"user_id":"ann"', "[]", SURROGATE])
def test_of_a_payload_that_cannot_be_read_nothing_is_taken_back(payload: str):
    (letter,) = all_published(row(payload, type=CHANGED))
    errors(letter)


def test_a_new_row_that_breaks_a_rule_is_a_dead_letter_only():
    (letter,) = all_published(row(type=PLACED, price="-5.00"))
    errors(letter)


@pytest.mark.parametrize("columns", BROKEN)
def test_the_removal_of_a_row_that_breaks_a_rule_is_an_event_all_the_same(columns: dict):
    (made,) = all_published(row(type=REMOVED, **columns))
    event = read_event(made.key, made.value)
    assert (event.type, event.id, event.data.version) == (REMOVED, EVENT_ID, 7)


# --- since when --------------------------------------------------------------------------------------------

NOON = datetime(2026, 1, 31, 12, 0, 0, 250000, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("age", "moment"),
    [
        ("0m", "2026-01-31 12:00:00.250000"),
        ("30m", "2026-01-31 11:30:00.250000"),
        ("12h", "2026-01-31 00:00:00.250000"),
        ("1d", "2026-01-30 12:00:00.250000"),
        ("31d", "2025-12-31 12:00:00.250000"),
        ("2w", "2026-01-17 12:00:00.250000"),
    ],
)
def test_an_age_is_counted_back_from_now(age, moment):
    assert parse_since(age, NOON) == moment


def test_an_age_is_counted_in_utc_whatever_the_zone_of_the_clock():
    assert parse_since("1h", NOON.astimezone(timezone(timedelta(hours=9)))) == "2026-01-31 11:00:00.250000"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T00:00:00Z", "2026-01-31 00:00:00.000000"),
        ("2026-01-31T00:00:00.000001Z", "2026-01-31 00:00:00.000001"),
        ("2026-01-31T02:00:00+02:00", "2026-01-31 00:00:00.000000"),
        ("2026-01-30T19:00:00-05:00", "2026-01-31 00:00:00.000000"),
        ("9999-12-31T23:59:59Z", "9999-12-31 23:59:59.000000"),
        # MySQL reads a year of two digits as one of this century, so all four must be written.
        ("0999-01-01T00:00:00Z", "0999-01-01 00:00:00.000000"),
        ("0001-01-01T00:00:00Z", "0001-01-01 00:00:00.000000"),
    ],
)
def test_a_time_with_a_zone_is_written_in_utc_as_mysql_reads_it(text, moment):
    assert parse_since(text, NOON) == moment


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "d", "1", "1s", "1D", "1 d", " 1d", "1d\n", "-1d", "+1d", "1.5h", "1h30m", "٣d", "9999999d",
        "yesterday", "Z", "2026-01-31TZ", "2026-02-30T00:00:00Z", "2026-01-31T25:00:00Z",
        "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "2026-01-31T00:00:00ZZ",
    ],
)  # fmt: skip
def test_what_is_neither_an_age_nor_a_time_is_refused(text):
    with pytest.raises(BadSource, match=r"--since .* is neither an age like 12h or 1d nor a time") as caught:
        parse_since(text, NOON)
    assert caught.value.exit_code == EX_USAGE


@pytest.mark.parametrize("text", ["2026-01-31T00:00:00", "2026-01-31", "2026-01-31T00:00:00.5"])
def test_a_time_without_a_zone_is_refused(text):
    with pytest.raises(BadSource, match="neither an age"):
        parse_since(text, NOON)


@pytest.mark.parametrize("text", ["999999w", "999999d", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-01:00"])
def test_a_moment_outside_of_the_calendar_is_refused(text):
    with pytest.raises(BadSource, match="neither an age"):
        parse_since(text, NOON)
