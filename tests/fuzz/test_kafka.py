"""What anybody who may write to Kafka, or join the consumer group, can send."""

from __future__ import annotations

import json
import zlib

import msgspec
import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from app.control import source_state
from app.control.state_topic import SIGNATURE_HEADER, StateCodec
from app.kafka.dead_letter_topic import letter_filter, parse_letter, retry_obstacle, settled_offset
from app.services.dead_letter_counts import MAX_REASON_CHARS, MAX_REASONS, DeadLetterCounts
from app.settings import Settings
from app.signing import Signer
from app.topics import Topics
from chunks.distribution import GroupDistribution, decode_distribution
from chunks.group_metadata import MAX_BYTES, SubscriptionInfo, _Assignment, _Metadata, decode_data
from commands.users.erase import is_record_of_user
from domain import events
from domain.errors import UnreadableEvent
from domain.events import MAX_EVENT_BYTES, read_document, read_event, read_references
from source import published_versions, versions
from source.events import build_record
from tests.kit.fuzz import NESTING, fuzz, inputs, samples
from tests.kit.makers import row

REASONS = {
    "empty", "too-large", "malformed-json", "wrong-type", "unknown-type", "unknown-schema", "broken-rule", "wrong-key",
}  # fmt: skip
STATE_KEYS = [sample.partition(b"\n")[0] for sample in samples("state")]
DEEP = [
    b"[" * NESTING,
    b'{"x":' * NESTING,
    b'{"data":' + b"[" * NESTING,
    b'{"mode":{"a":' + b"[" * NESTING,
    b'{"type":"order.placed","x":' + b"[" * NESTING,
]


def record(
    key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...] = (), offset: int = 7
) -> ConsumerRecord:
    return ConsumerRecord("topic", 0, offset, -1, 0, key, value, None, 0, 0, headers)


# -- events


@fuzz
@given(inputs("event"), st.sampled_from([b"ann", "anaïs 😀".encode(), b"", b"\xff", None]))
def test_an_event_is_read_or_refused_with_a_documented_reason(value: bytes, key: bytes | None):
    try:
        event = read_event(key, value)
    except UnreadableEvent as exc:
        assert exc.reason in REASONS
    else:
        encoded = msgspec.json.encode(event)
        assert read_event(key, encoded) == event
        # Control characters need six bytes, and a default is written.
        assert len(encoded) <= 6 * len(value) + 1_000
    read_references(value)


@pytest.mark.parametrize("value", [*DEEP, b" " * (MAX_EVENT_BYTES + 1), b'"' + b"x" * MAX_EVENT_BYTES + b'"'])
def test_a_deep_or_a_large_event_is_refused(value: bytes):
    with pytest.raises(UnreadableEvent) as refusal:
        read_document(value)
    assert refusal.value.reason in REASONS


def test_every_sample_is_an_event():
    for value in samples("event"):
        assert read_document(value).type in events.TYPES


@fuzz
@given(inputs("outbox_row"), st.sampled_from(sorted(events.TYPES)), st.text(max_size=60))
def test_a_row_of_the_outbox_becomes_an_event_or_a_dead_letter(payload: bytes, type: str, traceparent: str):
    settings, topics = Settings(), Topics(Settings())
    # The server's JSON and its character set exclude other bytes.
    outgoing = build_record(
        row(payload.decode(errors="replace"), type=type, traceparent=traceparent), "/mysql/x", topics, settings
    )
    if outgoing.topic == topics.orders.name:
        read_event(outgoing.key, outgoing.value)
    else:
        assert outgoing.topic == topics.orders_dead.name
        assert dict(outgoing.headers)["__lately.errors.exception"].decode() in REASONS


@fuzz
@given(inputs("event"), st.none() | st.binary(max_size=8))
def test_a_record_of_orders_has_a_version_and_a_user_or_none(value: bytes, key: bytes | None):
    assert published_versions._version(value) < versions.MAX_VERSION
    assert is_record_of_user("ann", b"ann", value)
    is_record_of_user("ann", key, value)


@pytest.mark.parametrize("value", DEEP)
def test_a_deep_record_of_orders_has_no_version_and_no_user(value: bytes):
    assert published_versions._version(value) == 0
    assert not is_record_of_user("ann", None, value)


# -- source-state


def split(sample: bytes) -> tuple[bytes, bytes]:
    key, _, value = sample.partition(b"\n")
    return key, value


@fuzz
@given(inputs("state").map(split), st.sampled_from([None, *STATE_KEYS]))
def test_a_state_is_ignored_or_can_be_written_again(sample: tuple[bytes, bytes], key: bytes | None):
    for state_key in (sample[0], key):
        state = source_state.decode(state_key, sample[1])
        if state is not None:
            encoded_key, encoded = source_state.encode(state)
            assert encoded_key == state_key
            assert source_state.decode(encoded_key, encoded) == state


@pytest.mark.parametrize("value", DEEP)
@pytest.mark.parametrize("key", STATE_KEYS)
def test_a_deep_state_is_ignored(key: bytes, value: bytes):
    assert source_state.decode(key, value) is None
    assert StateCodec("source-state", Signer([b"k"])).decode(record(key, value)) is None


def test_every_sample_is_a_state():
    assert {source_state.encode(source_state.decode(*split(sample)))[0] for sample in samples("state")} == {*STATE_KEYS}


@fuzz
@given(inputs("state").map(split), st.binary(max_size=80))
def test_a_state_without_a_signature_is_ignored(sample: tuple[bytes, bytes], signature: bytes):
    codec = StateCodec("source-state", Signer([b"k" * 16]))
    assert codec.decode(record(*sample, ((SIGNATURE_HEADER, signature),))) is None


# -- the consumer group


@fuzz
@given(st.one_of(inputs("subscription"), inputs("subscription_json").map(zlib.compress)))
def test_the_state_of_a_member_is_read_or_a_value_error(data: bytes):
    try:
        info = decode_data(data, SubscriptionInfo)
    except ValueError:
        return
    assert decode_data(zlib.compress(msgspec.json.encode(info)), SubscriptionInfo) == info


@fuzz
@given(inputs("distribution_json").map(zlib.compress))
def test_the_state_of_a_leader_is_read_or_a_value_error(data: bytes):
    try:
        distribution = decode_data(data, GroupDistribution)
    except ValueError:
        return
    assert decode_data(zlib.compress(msgspec.json.encode(distribution)), GroupDistribution) == distribution
    assert distribution.only(lambda url, signature: False).owners == {}


@fuzz
@given(inputs("assignment"))
def test_an_assignment_is_read_or_a_value_error(data: bytes):
    try:
        distribution = decode_distribution(data)
    except ValueError:
        return
    assert isinstance(distribution, GroupDistribution)


@fuzz
@given(st.one_of(inputs("metadata"), inputs("assignment")))
def test_the_coordinator_survives_any_metadata_and_any_assignment(data: bytes):
    for decoder in (_Metadata, _Assignment):
        decoded = decoder.decode(data)
        # Strings and arrays of Kafka name their length: none is longer than what was sent.
        assert len(repr(decoded.__dict__)) <= 100 * len(data) + 1_000


def test_every_sample_of_the_group_is_read():
    for data in samples("subscription"):
        assert decode_data(data, SubscriptionInfo).url.startswith("http")
    assert decode_distribution(samples("assignment")[1]).owners
    assert _Metadata.decode(samples("metadata")[1]).subscription == ["orders"]


@pytest.mark.parametrize("type_", [SubscriptionInfo, GroupDistribution])
@pytest.mark.parametrize("content", [b"\x00" * (16 * MAX_BYTES), b"[" * NESTING, b'{"url":' + b"[" * NESTING])
def test_a_large_or_deep_state_of_a_member_is_refused(type_: type, content: bytes):
    with pytest.raises(ValueError, match=r"larger than|malformed|recursion|Expected"):
        decode_data(zlib.compress(content), type_)


# -- dead letters

header_names = st.one_of(
    st.sampled_from(["__lately.errors.exception", "__lately.errors.partition", "lately.settled", "lately.done"]),
    st.text(max_size=30),
)


def headers_of(sample: bytes) -> list[tuple[str, bytes]]:
    parts = (line.partition(b"=") for line in sample.split(b"\n"))
    return [(name.decode(errors="replace"), value) for name, _, value in parts]


@fuzz
@given(
    st.one_of(
        inputs("dead_letter").map(headers_of), st.lists(st.tuples(header_names, st.binary(max_size=40)), max_size=6)
    ),
    st.none() | st.binary(max_size=20),
    st.none() | st.binary(max_size=20),
)
def test_any_record_of_orders_dead_is_a_letter_or_settles_one(
    headers: list[tuple[str, bytes]], key: bytes | None, value: bytes | None
):
    letter_record = record(key, value, tuple(headers))
    offset = settled_offset(letter_record)
    assert offset is None or -1 <= offset < 10**19
    letter = parse_letter(letter_record)
    json.dumps(letter.as_dict()).encode()
    assert letter.reason
    assert letter_filter([letter.id], letter.reason)(letter)
    assert retry_obstacle(letter, "orders", 4) is None or letter.reason
    counts = DeadLetterCounts(Settings(), Topics(Settings()))
    counts.apply(letter_record)
    assert sum(count.records for count in counts.by_reason) == (offset is None)


def test_reasons_of_letters_take_a_bounded_amount_of_memory():
    counts = DeadLetterCounts(Settings(), Topics(Settings()))
    for number in range(2 * MAX_REASONS):
        reason = f"{number} {'x' * 10_000}".encode()
        counts.apply(record(None, b"", (("__lately.errors.exception", reason),), number))
    assert sum(len(count.reason) for count in counts.by_reason) <= (MAX_REASONS + 1) * MAX_REASON_CHARS
    assert sum(count.records for count in counts.by_reason) == 2 * MAX_REASONS


@fuzz
@given(inputs("traceparent"))
def test_a_traceparent_is_valid_or_has_no_trace_id(data: bytes):
    text = data.decode(errors="surrogateescape")
    trace_id = events.trace_id_of(text)
    assert (trace_id is not None) == events.is_valid_traceparent(text)
    assert trace_id is None or events.is_valid_trace_id(trace_id)


def test_every_sample_of_a_traceparent_is_valid():
    assert all(events.is_valid_traceparent(sample.decode()) for sample in samples("traceparent"))
