"""Records taken straight from aiokafka's fetch buffers are what any reader of committed records gets."""

from __future__ import annotations

import asyncio
import random
import uuid

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, OffsetOutOfRangeError
from confluent_kafka import Producer
from faust.types import TP

from chunks.fetch import fetch_ranges
from tests.kit.broker import end_of, new_topic
from tests.kit.eventually import eventually
from tests.kit.fetch import LIMIT_S, WAIT_S, assert_contiguous, delivered, expected, reading, to_the_end, within_limit


class Transactions(Producer):
    """A producer of transactions in one partition."""

    def __init__(self, kafka: str, **settings: object) -> None:
        super().__init__({"bootstrap.servers": kafka, "transactional.id": uuid.uuid4().hex, **settings})
        self.kafka = kafka
        self.init_transactions(30)

    def transact(self, topic: str, count: int, name: str, commit: bool = True) -> None:
        """One transaction of `count` records, committed or aborted when all of them are in the log."""
        self.begin_transaction()
        for number in range(count):
            self.produce(topic, f"{name} {number}".encode(), name.encode())
        assert self.flush(30) == 0
        self.end(topic, commit)

    def end(self, topic: str, commit: bool = True) -> None:
        """Commit or abort what is in the log, and wait for the marker: a broker answers before it has written it."""
        before = end_of(self.kafka, topic)
        (self.commit_transaction if commit else self.abort_transaction)(30)
        eventually(lambda: end_of(self.kafka, topic) == before + 1)


@pytest.fixture
def topic(kafka: str) -> str:
    return new_topic(kafka)


def test_aborted_transactions_are_skipped_and_markers_belong_to_the_ranges(kafka, topic):
    one, other = Transactions(kafka), Transactions(kafka)
    one.transact(topic, 2, "first")
    other.transact(topic, 3, "aborted", commit=False)
    one.transact(topic, 1, "second")
    one.transact(topic, 2, "aborted", commit=False)

    async def work() -> None:
        async with reading(kafka, TP(topic, 0)) as consumer:
            runs = await to_the_end(consumer, TP(topic, 0))
            assert [value for _, _, value in delivered(runs)] == [b"first 0", b"first 1", b"second 0"]
            # Eight records and four markers.
            assert_contiguous(runs, 0, 12, 1_000)
            assert await consumer.position(TP(topic, 0)) == 12

    within_limit(work)


def test_a_partition_of_nothing_but_aborted_records_is_an_empty_run_to_its_end(kafka, topic):
    Transactions(kafka).transact(topic, 3, "aborted", commit=False)

    async def work() -> None:
        async with reading(kafka, TP(topic, 0)) as consumer:
            runs = await to_the_end(consumer, TP(topic, 0))
            assert delivered(runs) == []
            assert_contiguous(runs, 0, 4, 1_000)

    within_limit(work)


def test_an_open_transaction_holds_back_what_comes_after_it(kafka, topic):
    one, other = Transactions(kafka), Transactions(kafka)
    one.transact(topic, 1, "before")
    other.begin_transaction()
    other.produce(topic, b"open")
    assert other.flush(30) == 0
    one.transact(topic, 1, "after")

    async def work() -> None:
        tp = TP(topic, 0)
        async with reading(kafka, tp) as consumer:
            runs = await to_the_end(consumer, tp)
            assert [value for _, _, value in delivered(runs)] == [b"before 0"]
            assert await fetch_ranges(consumer, {tp}, 0, 1_000) == {}

            await asyncio.to_thread(other.end, topic)
            later = await to_the_end(consumer, tp)
            assert [value for _, _, value in delivered(later)] == [b"open", b"after 0"]
            assert_contiguous(runs + later, 0, 6, 1_000)

    within_limit(work)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("start", [0, 1, 57, 99])
def test_compressed_batches_are_read_from_the_asked_offset_on(kafka, topic, codec, start):
    Transactions(kafka, **{"compression.type": codec, "linger.ms": 1_000}).transact(topic, 100, "tea")

    async def work() -> None:
        tp = TP(topic, 0)
        async with reading(kafka, tp) as consumer:
            consumer.seek(tp, start)
            runs = await to_the_end(consumer, tp, 30)
            assert delivered(runs) == [(n, b"tea", b"tea %d" % n) for n in range(start, 100)]
            assert_contiguous(runs, start, 101, 30)

    within_limit(work)


@pytest.mark.parametrize("seed", range(3))
def test_any_mixture_of_transactions_is_read_as_another_client_reads_it(kafka, topic, seed):
    chance = random.Random(seed)
    codecs = ["none", "gzip", "lz4", "zstd"]
    producers = [Transactions(kafka, **{"compression.type": codec, "linger.ms": 0}) for codec in codecs]
    plain = Producer({"bootstrap.servers": kafka})
    open_ones: set[int] = set()
    for step in range(120):
        number = chance.randrange(len(producers))
        producer = producers[number]
        if number not in open_ones:
            producer.begin_transaction()
            open_ones.add(number)
        for place in range(chance.randrange(1, 20)):
            key = chance.choice([None, b"", b"k"])
            producer.produce(topic, b"%d %d %d" % (number, step, place), key)
        assert producer.flush(30) == 0
        if chance.random() < 0.5:
            producer.end(topic, commit=chance.random() < 0.5)
            open_ones.discard(number)
        if chance.random() < 0.2:
            plain.produce(topic, None, b"deleted")
            assert plain.flush(30) == 0
    for number in open_ones:
        producers[number].end(topic, commit=False)
    truth = expected(kafka, topic)
    end = end_of(kafka, topic)

    async def work() -> None:
        tp = TP(topic, 0)
        # Small answers: a transaction may begin in one and be aborted in another.
        for size in (500, 1_000_000):
            async with reading(kafka, tp, max_partition_fetch_bytes=size) as consumer:
                runs = await to_the_end(consumer, tp, 7)
                assert delivered(runs) == truth
                assert_contiguous(runs, 0, end, 7)

    within_limit(work)


def test_what_compaction_took_away_is_a_part_of_the_ranges(kafka):
    topic = new_topic(
        kafka, cleanup_policy="compact", min_cleanable_dirty_ratio="0.0", segment_bytes="1048576",
        max_compaction_lag_ms="1", delete_retention_ms="0",
    )  # fmt: skip
    producer = Transactions(kafka)
    for number in range(5):
        producer.transact(topic, 10, f"round {number}")

    async def work() -> None:
        async with reading(kafka, TP(topic, 0)) as consumer:
            # However far the cleaner has come by now.
            runs = await to_the_end(consumer, TP(topic, 0), end=55)
            assert_contiguous(runs, 0, 55, 1_000)
            values = {key: value for _, key, value in delivered(runs)}
            assert values == {b"round %d" % number: b"round %d 9" % number for number in range(5)}

    within_limit(work)


def test_partitions_that_are_not_asked_for_now_are_delivered_when_they_are(kafka):
    topic = new_topic(kafka, partitions=2)
    producer = Producer({"bootstrap.servers": kafka})
    for number in range(10):
        producer.produce(topic, b"%d" % number, partition=number % 2)
    assert producer.flush(30) == 0

    async def work() -> None:
        first, second = TP(topic, 0), TP(topic, 1)
        async with reading(kafka, first, second) as consumer:
            for tp in (first, second):
                values = [value for _, _, value in delivered(await to_the_end(consumer, tp))]
                assert values == [b"%d" % number for number in range(tp.partition, 10, 2)]

    within_limit(work)


def test_what_was_fetched_before_a_pause_comes_again_after_it(kafka, topic):
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce(topic, b"once")
    assert producer.flush(30) == 0

    async def work() -> None:
        tp = TP(topic, 0)
        async with reading(kafka, tp) as consumer:
            # Until the record lies in the buffer.
            while not consumer._fetcher._records:
                assert await fetch_ranges(consumer, set(), WAIT_S, 10) == {}
            consumer.pause(TopicPartition(*tp))
            assert await fetch_ranges(consumer, set(), 0, 10) == {}
            assert not consumer._fetcher._records
            consumer.resume(TopicPartition(*tp))
            assert delivered(await to_the_end(consumer, tp)) == [(0, None, b"once")]

    within_limit(work)


def test_a_seek_leaves_nothing_of_what_was_fetched_before_it(kafka, topic):
    producer = Producer({"bootstrap.servers": kafka})
    for number in range(10):
        producer.produce(topic, b"%d" % number)
    assert producer.flush(30) == 0

    async def work() -> None:
        tp = TP(topic, 0)
        async with reading(kafka, tp) as consumer:
            for start in (0, 7, 3, 9):
                while not consumer._fetcher._records:
                    await fetch_ranges(consumer, set(), WAIT_S, 10)
                consumer.seek(tp, start)
                runs = await to_the_end(consumer, tp)
                assert_contiguous(runs, start, 10, 1_000)
                assert [value for _, _, value in delivered(runs)] == [b"%d" % n for n in range(start, 10)]
                consumer.seek(tp, 0)

    within_limit(work)


def test_nothing_to_read_is_nothing(kafka, topic):
    async def work() -> None:
        async with reading(kafka, TP(topic, 0)) as consumer:
            assert await fetch_ranges(consumer, {TP(topic, 0)}, 0, 10) == {}
            assert await fetch_ranges(consumer, {TP(topic, 0)}, 0.01, 10) == {}

    within_limit(work)


def test_records_that_arrive_while_a_fetch_waits_are_delivered_by_it(kafka, topic):
    async def work() -> None:
        tp = TP(topic, 0)
        async with reading(kafka, tp) as consumer, AIOKafkaProducer(bootstrap_servers=kafka) as producer:
            waiting = asyncio.create_task(fetch_ranges(consumer, {tp}, LIMIT_S, 10))
            await producer.send_and_wait(topic, b"late")
            assert delivered((await waiting)[tp]) == [(0, None, b"late")]

    within_limit(work)


def test_an_assignment_ends_a_fetch_that_waits(kafka, topic):
    async def work() -> None:
        async with reading(kafka, TP(topic, 0)) as consumer:
            waiting = asyncio.create_task(fetch_ranges(consumer, {TP(topic, 0)}, 10 * LIMIT_S, 100))
            await asyncio.wait([waiting], timeout=0.2)
            assert not waiting.done()
            consumer.assign([TopicPartition(topic, 0)])
            assert await waiting == {}

    within_limit(work)


def test_an_offset_that_does_not_exist_is_an_error(kafka, topic):
    async def work() -> None:
        tp = TP(topic, 0)
        async with reading(kafka, tp, auto_offset_reset="none") as consumer:
            consumer.seek(tp, 1_000)
            with pytest.raises(OffsetOutOfRangeError):
                await to_the_end(consumer, tp)

    within_limit(work)


def test_a_stopped_consumer_says_so(kafka, topic):
    async def work() -> None:
        async with reading(kafka, TP(topic, 0)) as consumer:
            await fetch_ranges(consumer, {TP(topic, 0)}, 0.01, 10)
        with pytest.raises(ConsumerStoppedError):
            await fetch_ranges(consumer, {TP(topic, 0)}, 0, 10)

    within_limit(work)
