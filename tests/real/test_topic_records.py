"""An open transaction is found by the offset from which on readers of committed records see nothing."""

from __future__ import annotations

import asyncio
import uuid

from confluent_kafka import Producer

from app.kafka.records import open_topic_records
from app.settings import Settings
from tests.kit.broker import new_topic


def find_open_transaction(kafka: str, topic: str) -> int | None:
    async def work() -> int | None:
        async with open_topic_records(Settings.from_env({"LATELY_KAFKA": kafka})) as records:
            return await records.open_transaction(topic, 0)

    return asyncio.run(work())


def test_only_an_open_transaction_has_an_offset(kafka):
    topic = new_topic(kafka)
    assert find_open_transaction(kafka, topic) is None
    plain = Producer({"bootstrap.servers": kafka})
    plain.produce(topic, b"before")
    assert plain.flush(20) == 0
    assert find_open_transaction(kafka, topic) is None
    foreign = Producer({"bootstrap.servers": kafka, "transactional.id": uuid.uuid4().hex})
    foreign.init_transactions(30)
    foreign.begin_transaction()
    foreign.produce(topic, b"open")
    assert foreign.flush(20) == 0
    plain.produce(topic, b"behind")
    assert plain.flush(20) == 0
    assert find_open_transaction(kafka, topic) == 1
    foreign.abort_transaction(30)
    assert find_open_transaction(kafka, topic) is None
