"""Which records of source-state count when LATELY_SIGNING_KEY is set."""

from __future__ import annotations

import pytest
from aiokafka.structs import ConsumerRecord

from app.control.source_state import WatermarkState
from app.control.state_topic import SIGNATURE_HEADER, create_codec
from app.settings import Settings

KEY, OTHER = "a key of sixteen bytes", "another key of sixteen bytes"
STATE = WatermarkState(table="shop.orders", low=1, version=2)
NEWER = WatermarkState(table="shop.orders", low=3, version=4)


def record_of(settings: Settings, state: WatermarkState = STATE) -> ConsumerRecord:
    key, value, headers = create_codec(settings).encode(state)
    return ConsumerRecord("source-state", 0, 7, 0, 0, key, value, None, 0, 0, tuple(headers))


def with_content(record: ConsumerRecord, **changed: object) -> ConsumerRecord:
    fields = {name: getattr(record, name) for name in ConsumerRecord.__dataclass_fields__}
    return ConsumerRecord(**(fields | changed))


def test_a_signed_record_counts_and_one_of_another_key_does_not(caplog):
    record = record_of(Settings(signing_key=KEY))
    assert create_codec(Settings(signing_key=KEY)).decode(record) == STATE
    assert create_codec(Settings(signing_key=OTHER)).decode(record) is None
    assert "`lately source sign`" in caplog.text
    assert create_codec(Settings(signing_key=OTHER, signing_key_previous=KEY)).decode(record) == STATE
    assert create_codec(Settings()).decode(record) == STATE


@pytest.mark.parametrize(
    "headers", [(), ((SIGNATURE_HEADER, None),), ((SIGNATURE_HEADER, b"\xff"),), ((SIGNATURE_HEADER, b""),)]
)
def test_a_record_without_a_signature_does_not_count(headers):
    record = with_content(record_of(Settings(signing_key=KEY)), headers=headers)
    assert create_codec(Settings(signing_key=KEY)).decode(record) is None


def test_a_signature_of_another_value_or_of_another_topic_does_not_count():
    settings = Settings(signing_key=KEY)
    record, newer = record_of(settings), record_of(settings, NEWER)
    assert create_codec(settings).decode(with_content(record, value=newer.value)) is None
    elsewhere = Settings(signing_key=KEY, topic_prefix="other-")
    assert create_codec(elsewhere).decode(record) is None


def test_the_log_names_an_ignored_record_once(caplog):
    codec = create_codec(Settings(signing_key=KEY))
    for _ in range(3):
        assert codec.decode(record_of(Settings())) is None
    assert len(caplog.records) == 1
