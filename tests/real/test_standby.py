"""A copy of a partition is read only where it holds all that anybody may have been shown, which Kafka knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP
from yarl import URL

from chunks.fetch import fetch_ranges, tune_consumer
from chunks.standby import StandbyCheck
from chunks.store import Store
from chunks.transactions import transactional_id
from tests.kit.partition_owner import POSITION, SOURCE, Owner, Partition, still_waits, within_limit

WITHIN_S = 5.0
SOON_S = 0.05


@pytest.fixture
def partition(kafka: str, tmp_path) -> Partition:
    made = Partition(kafka, tmp_path)
    made.app = SimpleNamespace(
        conf=SimpleNamespace(id=made.id, broker_client_id="test", broker_credentials=None, ssl_context=None),
        transport=SimpleNamespace(url=[URL(f"kafka://{kafka}")], default_port=9092),
        tables=SimpleNamespace(transactional_id=partial(transactional_id, made.id)),
    )
    made.id = transactional_id(made.id, SOURCE)
    return made


def table(partition: Partition, store: Store) -> SimpleNamespace:
    store.write_beginning(b"id", 0, True)
    store.is_verified = True
    return SimpleNamespace(changelog=partition.changelogs["by_user"], source_topic=SOURCE.topic, stores={0: store})


class Standby:
    """A copy that takes over what is committed when it is told to."""

    def __init__(self, partition: Partition, consumer: AIOKafkaConsumer) -> None:
        self.store = Store(partition.folder / "standby.db").open()
        self.table = table(partition, self.store)
        self._consumer = consumer

    async def follow(self, until: int) -> None:
        tp = TP(self.table.changelog, 0)
        while self.store.offset < until:
            for run in (await fetch_ranges(self._consumer, {tp}, 1.0, 500)).get(tp, ()):
                self.store.apply([(key, value) for _, key, value in run.records], run.next)


@asynccontextmanager
async def standby(partition: Partition) -> AsyncIterator[Standby]:
    consumer = tune_consumer(AIOKafkaConsumer(bootstrap_servers=partition.kafka, enable_auto_commit=False))
    await consumer.start()
    tp = TopicPartition(partition.changelogs["by_user"], 0)
    consumer.assign([tp])
    consumer.seek(tp, 0)
    made = Standby(partition, consumer)
    try:
        yield made
    finally:
        await consumer.stop()
        made.store.close()


async def buys(owner: Owner, value: bytes) -> None:
    await owner.step(by_user={b"ann": value})


def test_a_copy_is_exact_once_it_has_all_that_is_committed_and_what_is_open_was_shown_to_nobody(partition):
    async def work() -> None:
        check = StandbyCheck(partition.app)
        async with partition.owner() as owner, standby(partition) as copy:
            await buys(owner, b"1")
            assert await owner.settled()
            assert not await check.is_caught_up(copy.table, 0, SOON_S), "it has nothing yet"
            # Value, position, marker.
            await copy.follow(3)
            assert await check.is_caught_up(copy.table, 0, WITHIN_S)
            assert not await check.is_caught_up(copy.table, 1, WITHIN_S), "a partition that is not open here"

            owner.producer.hold()
            await buys(owner, b"2")
            await owner.producer.reached.wait()
            assert await check.is_caught_up(copy.table, 0, WITHIN_S)

            owner.producer.go_on.set()
            assert await owner.settled()
            waiting = asyncio.create_task(check.is_caught_up(copy.table, 0, WITHIN_S))
            assert not await check.is_caught_up(copy.table, 0, SOON_S)
            await copy.follow(6)
            assert await waiting, "it waits for what is about to arrive"
            assert copy.store.get(b"ann") == b"2"
        await check.stop()

    assert within_limit(work) == []


def test_a_partition_that_was_given_up_is_exact_until_its_new_owner_commits(partition):
    async def work() -> None:
        check = StandbyCheck(partition.app)
        async with partition.owner() as owner:
            former = table(partition, owner.stores["by_user"])
            await buys(owner, b"1")
            assert await owner.settled()
            assert await check.is_caught_up(former, 0, WITHIN_S)
            async with partition.owner("second", position=1) as second:
                assert await check.is_caught_up(former, 0, WITHIN_S), "a new owner changes nothing by itself"
                await buys(second, b"2")
                assert await second.settled()
                assert not await check.is_caught_up(former, 0, SOON_S)
        await check.stop()

    within_limit(work)


def test_nothing_that_was_acknowledged_is_missing_in_a_copy_that_is_exact(partition):
    """Kafka acknowledges a commit a moment before readers see it: without the question for it, this fails."""

    async def work() -> None:
        check = StandbyCheck(partition.app)
        async with partition.owner() as owner, standby(partition) as copy:
            following = asyncio.create_task(copy.follow(10**9))
            for number in range(1, 301):
                await buys(owner, b"%d" % number)
                assert await owner.settled()
                assert await check.is_caught_up(copy.table, 0, WITHIN_S)
                assert copy.store.get(b"ann") == b"%d" % number
            following.cancel()
            await asyncio.wait([following])
        await check.stop()

    within_limit(work)


def test_whoever_comes_while_kafka_is_asked_is_not_told_what_was_asked_before(partition, monkeypatch):
    async def work() -> None:
        check = StandbyCheck(partition.app)
        async with partition.owner() as owner, standby(partition) as copy:
            await buys(owner, b"1")
            assert await owner.settled()
            await copy.follow(3)
            assert await check.is_caught_up(copy.table, 0, WITHIN_S)
            ask, heard, go_on = check._consumer.end_offsets, asyncio.Event(), asyncio.Event()

            async def slowly(tps: list[TopicPartition]) -> dict[TopicPartition, int]:
                ends = await ask(tps)
                heard.set()
                await go_on.wait()
                return ends

            monkeypatch.setattr(check._consumer, "end_offsets", slowly)
            early = asyncio.create_task(check.is_caught_up(copy.table, 0, WITHIN_S))
            await heard.wait()
            await buys(owner, b"2")
            assert await owner.settled()
            late = asyncio.create_task(check.is_caught_up(copy.table, 0, 10 * SOON_S))
            await still_waits(late)
            go_on.set()
            assert (await early, await late) == (True, False)
        await check.stop()

    within_limit(work)


def test_where_kafka_does_not_answer_no_copy_is_exact(partition, tmp_path):
    async def work() -> None:
        partition.app.transport.url = [URL("kafka://127.0.0.1:1")]
        store = Store(tmp_path / "alone.db").open()
        alone = table(partition, store)
        store.apply([(POSITION, b"1")], 2)
        assert not await StandbyCheck(partition.app).is_caught_up(alone, 0, WITHIN_S)
        store.close()

    within_limit(work)
