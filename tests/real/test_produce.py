"""Records reach a topic that accepts only small batches, in order; a single one that is too large is named."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import RecordTooLarge
from app.kafka.produce import Message, durable_producer, send_in_order
from app.settings import Settings
from tests.kit.broker import new_topic, records

SMALL = 10_000


def message(value: bytes) -> Message:
    return {"timestamp": None, "key": b"k", "value": value, "headers": []}


def send(kafka: str, topic: str, *groups: list[bytes]) -> list[int]:
    """The ends after each group of values."""

    async def work() -> list[int]:
        async with durable_producer(Settings.from_env({"LATELY_KAFKA": kafka})) as producer:
            return [await send_in_order(producer, topic, 0, [message(value) for value in group]) for group in groups]

    return asyncio.run(asyncio.wait_for(work(), 60))


def without_repetition(values: list[bytes]) -> list[bytes]:
    return sorted(set(values), key=lambda value: len(values) - values[::-1].index(value))


def test_a_refused_batch_is_sent_in_parts_and_the_order_is_that_of_the_messages(kafka):
    topic = new_topic(kafka, max_message_bytes=str(SMALL))
    values = [b"%06d" % number + bytes(150) for number in range(600)]
    ends = send(kafka, topic, values, [b"later"])
    stored = [value for _, value in records(kafka, topic)]
    assert without_repetition(stored) == [*values, b"later"]
    assert ends[1] == len(stored)


def test_a_single_record_that_is_too_large_is_named_with_topic_and_setting(kafka):
    topic = new_topic(kafka, max_message_bytes=str(SMALL))
    with pytest.raises(RecordTooLarge, match=rf"topic {topic} .* max.message.bytes"):
        send(kafka, topic, [b"small", bytes(2 * SMALL), b"small too"])
    assert send(kafka, topic, [b"after"])


def test_without_a_limit_everything_is_one_batch(kafka):
    topic = new_topic(kafka)
    assert send(kafka, topic, [b"%d" % number for number in range(1_000)], []) == [1_000, 0]
    assert len(records(kafka, topic)) == 1_000
