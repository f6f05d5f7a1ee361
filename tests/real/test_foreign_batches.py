"""What any client can write to a topic ends no reader of it, and takes none of its memory."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from faust.types import TP

from app.kafka.consume import open_consumer, partitions_of, read_until
from app.settings import Settings
from chunks.decompress import MAX_EXPANDED_BYTES
from chunks.record_batch import UnreadableBytes
from tests.kit.batches import GZIP, LZ4, PLAIN_NAME, SNAPPY, ZSTD, build, with_bad_names, write_raw
from tests.kit.broker import new_topic
from tests.kit.fetch import delivered, reading, to_the_end, within_limit

GOOD = build([(b"good", b"v", [])])
BAD_NAME = with_bad_names(build([(b"a", b"1", [(PLAIN_NAME, b"x")]), (b"b", b"2", [])]))
#: Limit of the memory of a test, in which the bytes of a fetch and the expanded batch count.
MAX_MEMORY = MAX_EXPANDED_BYTES


@pytest.fixture
def topic(kafka: str) -> str:
    return new_topic(kafka, max_message_bytes=str(16 * 2**20))


def write(kafka: str, topic: str, *batches: bytes) -> None:
    for data in batches:
        asyncio.run(write_raw(kafka, topic, data))


def read_keys(kafka: str, topic: str, tmp_path: Path) -> list[bytes | None]:
    """The keys that commands and followers read."""
    settings = Settings.from_env({"LATELY_KAFKA": kafka, "LATELY_DATA_DIR": str(tmp_path)})

    async def work() -> list[bytes | None]:
        async with open_consumer(settings) as consumer:
            tps: list[TopicPartition] = partitions_of(topic, 1)
            consumer.assign(tps)
            return [record.key async for record in read_until(consumer, await consumer.end_offsets(tps))]

    return asyncio.run(work())


def test_a_header_name_that_is_no_text_costs_no_record(kafka, topic, tmp_path):
    write(kafka, topic, GOOD, BAD_NAME, GOOD)

    async def work() -> None:
        async with reading(kafka, TP(topic, 0)) as consumer:
            runs = await to_the_end(consumer, TP(topic, 0))
            assert [key for _, key, _ in delivered(runs)] == [b"good", b"a", b"b", b"good"]

    within_limit(work)
    assert read_keys(kafka, topic, tmp_path) == [b"good", b"a", b"b", b"good"]


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_a_small_batch_of_half_a_gigabyte_is_an_unreadable_record_for_each_offset(kafka, topic, tmp_path, codec):
    bomb = build([(b"k", bytes(2**28), [])] * 2, codec)
    assert len(bomb) < 64 * 2**20
    if len(bomb) > 8 * 2**20:
        bomb = build([(b"k", bytes(2**26 + 2**20), [])] * 2, codec)
    write(kafka, topic, GOOD, bomb, GOOD)
    del bomb

    async def work() -> None:
        async with reading(kafka, TP(topic, 0)) as consumer:
            runs = await to_the_end(consumer, TP(topic, 0))
            assert [(offset, key) for offset, key, _ in delivered(runs)] == [
                (0, b"good"),
                (1, None),
                (2, None),
                (3, b"good"),
            ]
            unreadable = [value for *_, value in delivered(runs)[1:3]]
            assert all(isinstance(value, UnreadableBytes) and "expands" in value.problem for value in unreadable)

    tracemalloc.start()
    within_limit(work)
    assert read_keys(kafka, topic, tmp_path) == [b"good", b"good"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MAX_MEMORY * 1.5
