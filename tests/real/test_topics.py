"""All topics are made at the start, and a wrong one is named."""

import asyncio
from dataclasses import replace

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.api import Response
from aiokafka.protocol.metadata import MetadataRequest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from app.control import state_topic
from app.errors import BadTopic, ServerAway
from app.kafka import admin as kafka_admin
from app.kafka.admin import admin_client, ensure_topics, missing_topics
from app.kafka.consume import open_consumer, partitions_of
from app.kafka.dead_letter_topic import find_letters
from app.kafka.lag import open_lag_reader
from app.kafka.topic_metadata import count_partitions
from app.settings import Settings
from app.topics import Topics
from local.process import find_free_port
from tests.kit.stack import Stack


@pytest.fixture
def admin(kafka: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka})


def create(admin: AdminClient, name: str, partitions: int, policy: str) -> None:
    admin.create_topics([NewTopic(name, partitions, 1, config={"cleanup.policy": policy})])[name].result()


def test_missing_topics_are_created_and_doing_it_again_changes_nothing(settings: Settings, admin: AdminClient):
    for _ in range(2):
        asyncio.run(ensure_topics(settings))
    found = admin.list_topics(timeout=10).topics
    for topic in Topics(settings).all:
        assert len(found[topic.name].partitions) == (topic.partitions or settings.partitions)
        resource = ConfigResource("topic", topic.name)
        config = admin.describe_configs([resource])[resource].result()
        assert {name: config[name].value for name in topic.config} == topic.config


def test_the_offsets_of_new_topics_can_be_read_at_once(settings: Settings, caplog: pytest.LogCaptureFixture):
    async def read_beginning(prefix: str) -> None:
        created = replace(settings, topic_prefix=f"{settings.topic_prefix}{prefix}-")
        await ensure_topics(created)
        async with open_consumer(created) as consumer:
            partitions = partitions_of(Topics(created).orders.name, created.partitions)
            consumer.assign(partitions)
            for partition in partitions:
                assert await consumer.position(partition) == 0

    for number in range(8):
        asyncio.run(read_beginning(str(number)))
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_no_command_requests_the_metadata_of_all_topics(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the metadata of all topics was requested")

    async def use_topics() -> None:
        await ensure_topics(settings)
        assert await missing_topics(settings) == []
        assert (await state_topic.read(settings)).layout is None
        assert await find_letters(settings, lambda letter: True) == []
        async with open_lag_reader(settings) as lag:
            assert (await lag.list_workers(), await lag.count_unread()) == ([], 0)

    monkeypatch.setattr(AIOKafkaClient, "fetch_all_metadata", refuse)
    monkeypatch.setattr(AIOKafkaAdminClient, "list_topics", refuse)
    monkeypatch.setattr(AIOKafkaAdminClient, "_get_cluster_metadata", _request_topics)
    asyncio.run(use_topics())


async def _request_topics(admin: AIOKafkaAdminClient, topics: list[str] | None = None) -> Response:
    assert topics is not None, "the metadata of all topics was requested"
    return await admin._send_request(MetadataRequest(topics))


def test_a_topic_that_does_not_exist_is_not_created_by_the_request(settings: Settings):
    async def count() -> dict[str, int]:
        async with admin_client(settings) as admin:
            return await count_partitions(admin, [Topics(settings).orders.name, "not a valid name"])

    assert asyncio.run(count()) == asyncio.run(count()) == {}


def test_two_workers_that_start_at_once_both_find_the_topics(settings: Settings):
    async def both() -> None:
        await asyncio.gather(ensure_topics(settings), ensure_topics(settings))

    asyncio.run(both())


def test_a_topic_with_the_wrong_number_of_partitions_is_named(settings: Settings, admin: AdminClient):
    create(admin, f"{settings.topic_prefix}orders", 3, "delete")
    with pytest.raises(BadTopic, match="orders has 3 partitions, but LATELY_PARTITIONS is 2"):
        asyncio.run(ensure_topics(settings))


def test_a_changelog_that_would_be_deleted_is_named_with_the_command_that_mends_it(
    settings: Settings, admin: AdminClient
):
    create(admin, f"{settings.id}-by_user-changelog", settings.partitions, "delete")
    with pytest.raises(BadTopic, match=r"by_user-changelog has cleanup.policy=delete.*kafka-configs.sh --alter"):
        asyncio.run(ensure_topics(settings))


def test_a_broker_that_does_not_answer_is_named(settings: Settings, stack: Stack):
    nowhere = Settings.from_env({**stack.env, "LATELY_KAFKA": f"127.0.0.1:{find_free_port()}"})
    with pytest.raises(ServerAway, match="LATELY_KAFKA"):
        asyncio.run(ensure_topics(nowhere))


def test_a_topic_that_the_broker_does_not_list_in_time_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kafka_admin, "BROKER_TIMEOUT_S", 0.2)

    async def wait() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_servers)
        await admin.start()
        try:
            await kafka_admin._wait_until_listed(admin, {f"{settings.id}-never-created"})
        finally:
            await admin.close()

    with pytest.raises(ServerAway, match=r"never-created were created, but 0\.2 s later the broker does not list them"):
        asyncio.run(wait())
