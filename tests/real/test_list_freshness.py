"""What is proven about lists outlasts a broker that is away, and never a topic that was created again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from app.kafka.admin import ensure_topics
from app.kafka.groups import GROUP_SEPARATOR
from app.polling import poll_until
from app.services.list_freshness import ListFreshness
from app.services.source_status import SourceStatus
from app.settings import Settings
from app.topics import Topics
from local.artifacts import Artifacts
from local.kafka import start_kafka

LIMIT_S, WITHIN_S, EVERY_S = 120, 30, 0.05


class Pipeline:
    """The topics of a worker, and what its agents would commit."""

    def __init__(self, settings: Settings) -> None:
        self.settings, topics = settings, Topics(settings)
        self.changelog = topics.changelog("similar")
        self.sources = {
            "by_user": topics.orders.name,
            "baskets": topics.purchase_changes.name,
            "similar": topics.co_purchases.name,
        }
        self.applied = {0: 0}
        self.freshness = ListFreshness(
            settings, topics, SourceStatus(settings, topics), lambda: self.applied, self.changelog
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.freshness.start()
        try:
            yield
        finally:
            await self.freshness.stop()

    def produce(self, topic: str, count: int) -> None:
        producer = Producer({"bootstrap.servers": self.settings.kafka, "acks": "all"})
        for _ in range(count):
            producer.produce(topic, b"", b"", partition=0)
        assert producer.flush(30) == 0

    async def commit(self, agent: str, offset: int, group: str | None = None) -> None:
        tp = TopicPartition(self.sources[agent], 0)
        async with AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka, group_id=group or self.settings.group, enable_auto_commit=False
        ) as consumer:
            consumer.assign([tp])
            await consumer.commit({tp: offset})

    async def create_again(self, topic: str) -> None:
        admin = AdminClient({"bootstrap.servers": self.settings.kafka})
        await asyncio.to_thread(admin.delete_topics([topic])[topic].result)
        await poll(lambda: topic not in admin.list_topics(timeout=10).topics)
        await ensure_topics(self.settings)

    def contained(self) -> int | None:
        offsets = self.freshness._barriers.contained(self.applied)
        return None if offsets is None else offsets[0]

    async def proves(self, offset: int | None) -> None:
        await poll(lambda: self.contained() == offset, lambda: f"{self.contained()} is not {offset}")

    async def observes(self, times: int) -> None:
        first = self.freshness.observations
        await poll(lambda: self.freshness.observations >= first + times, lambda: "there are no observations")


async def poll(check, describe=lambda: "never") -> None:
    async def attempt() -> bool:
        return await asyncio.to_thread(check)

    assert await poll_until(attempt, WITHIN_S, EVERY_S), describe()


def test_while_kafka_is_away_the_proof_remains_and_afterwards_it_goes_on(artifacts: Artifacts, tmp_path: Path):
    async def work(broker) -> None:
        settings = Settings(kafka=broker.address, partitions=1)
        await ensure_topics(settings)
        pipeline = Pipeline(settings)
        async with pipeline.running():
            pipeline.produce(pipeline.sources["by_user"], 3)
            await pipeline.commit("by_user", 3)
            await pipeline.proves(3)
            await asyncio.to_thread(broker.kill)
            await poll(lambda: pipeline.freshness._is_failing)
            assert pipeline.contained() == 3
            await asyncio.to_thread(broker.start)
            pipeline.produce(pipeline.sources["by_user"], 1)
            await pipeline.commit("by_user", 4)
            await pipeline.proves(4)
            assert not pipeline.freshness.crashed

    with start_kafka(artifacts, tmp_path) as broker:
        asyncio.run(asyncio.wait_for(work(broker), LIMIT_S))


def test_a_barrier_waits_for_the_agents_of_all_groups(settings: Settings):
    settings = replace(settings, partitions=1)

    async def work() -> None:
        await ensure_topics(settings)
        pipeline = Pipeline(settings)
        pipeline.produce(pipeline.sources["by_user"], 3)
        pipeline.produce(pipeline.sources["baskets"], 2)
        await pipeline.commit("by_user", 1)
        async with pipeline.running():
            await pipeline.observes(3)
            assert pipeline.contained() is None
            # The agent moves to a group of its own.
            group = GROUP_SEPARATOR.join([settings.group, "baskets"])
            await pipeline.commit("baskets", 2, group)
            await pipeline.proves(1)

    asyncio.run(asyncio.wait_for(work(), LIMIT_S))


def test_a_topic_that_was_created_again_invalidates_the_proof_until_its_agent_reads_it(settings: Settings):
    settings = replace(settings, partitions=1)

    async def work() -> None:
        await ensure_topics(settings)
        pipeline = Pipeline(settings)
        changes = pipeline.sources["baskets"]
        pipeline.produce(pipeline.sources["by_user"], 3)
        pipeline.produce(changes, 5)
        await pipeline.commit("by_user", 3)
        await pipeline.commit("baskets", 5)
        async with pipeline.running():
            await pipeline.proves(3)
            await pipeline.create_again(changes)
            await pipeline.proves(None)
            pipeline.produce(changes, 9)
            await pipeline.observes(3)
            assert pipeline.contained() is None
            await pipeline.commit("baskets", 9)
            await pipeline.proves(3)

    asyncio.run(asyncio.wait_for(work(), LIMIT_S))
