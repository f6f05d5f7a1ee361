"""Two apps on one Kafka: with any equal and different ids and prefixes they are right or refused, never mixed."""

from __future__ import annotations

import asyncio
import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiokafka import TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions

from app.control import identity
from app.control.identity import adopt, prepare_topics, read_identities, require_identity
from app.errors import BadTopic, WrongIdentity
from app.kafka.consume import open_consumer
from app.settings import Settings
from app.topics import Topics
from tests.kit.eventually import eventually


def prepare(settings: Settings) -> None:
    asyncio.run(prepare_topics(settings))


def assert_refused(settings: Settings, message: str) -> None:
    """The topics are refused, once the broker knows that they were altered."""
    eventually(lambda: message in refuses(settings))


def refuses(settings: Settings) -> str:
    """The message with which the topics are refused; empty if they are right."""
    try:
        prepare(settings)
    except BadTopic as exc:
        return str(exc)
    return ""


def alter(settings: Settings, topic: str, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka})
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()]
    resource = ConfigResource("topic", topic, incremental_configs=entries)
    admin.incremental_alter_configs([resource])[resource].result()


def add_partitions(settings: Settings, *topics: str) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka})
    for future in admin.create_partitions([NewPartitions(topic, 8) for topic in topics]).values():
        future.result()


@pytest.mark.parametrize(
    ("same_id", "same_prefix", "refused"),
    [(True, True, False), (True, False, True), (False, True, False), (False, False, False)],
)
def test_a_second_app_is_right_or_refused(settings: Settings, same_id: bool, same_prefix: bool, refused: bool):
    prepare(settings)
    second = dataclasses.replace(
        settings,
        id=settings.id if same_id else f"{settings.id}-second",
        topic_prefix=settings.topic_prefix if same_prefix else f"{settings.topic_prefix}second-",
    )
    if not refused:
        prepare(second)
        asyncio.run(require_identity(second))
        return
    with pytest.raises(WrongIdentity, match=f"belong to the orders in {Topics(settings).orders.name}, but these"):
        prepare(second)
    with pytest.raises(WrongIdentity):
        asyncio.run(require_identity(second))
    prepare(settings)


def test_an_app_of_an_earlier_version_is_known_by_the_offsets_of_its_group(settings: Settings):
    async def commit() -> None:
        async with open_consumer(settings, group_id=settings.group) as consumer:
            tp = TopicPartition(Topics(settings).orders.name, 0)
            consumer.assign([tp])
            await consumer.commit({tp: 5})

    asyncio.run(identity.ensure_topics(settings))
    asyncio.run(commit())
    second = dataclasses.replace(settings, topic_prefix=f"{settings.topic_prefix}second-")
    with pytest.raises(WrongIdentity, match="set another LATELY_ID"):
        prepare(second)
    prepare(settings)


def test_of_two_apps_that_begin_together_one_is_refused(settings: Settings):
    second = dataclasses.replace(settings, topic_prefix=f"{settings.topic_prefix}second-")

    def begin(app: Settings) -> bool:
        try:
            prepare(app)
        except WrongIdentity:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        began = list(pool.map(begin, [settings, second]))
    _, recorded = asyncio.run(read_identities(settings))
    assert recorded is not None
    winner = began.index(True)
    assert recorded.orders == Topics((settings, second)[winner]).orders.name
    with pytest.raises(WrongIdentity):
        prepare((second, settings)[winner])


def test_topics_that_moved_to_another_cluster_are_adopted_by_command(settings: Settings, monkeypatch):
    prepare(settings)

    async def other_cluster(_: object) -> str:
        return "another"

    monkeypatch.setattr(identity, "read_cluster_id", other_cluster)
    with pytest.raises(WrongIdentity, match=r"to another: .*`lately identity --adopt`"):
        prepare(settings)
    asyncio.run(adopt(settings))
    prepare(settings)


@pytest.mark.partitions(4)
def test_another_number_of_partitions_is_refused_also_after_the_topics_were_altered(settings: Settings):
    prepare(settings)
    wrong = dataclasses.replace(settings, partitions=8)
    message = r"made with 4: set LATELY_PARTITIONS=4; `lately rescale --partitions 8`"
    with pytest.raises(WrongIdentity, match=message):
        prepare(wrong)
    add_partitions(settings, *(topic.name for topic in Topics(settings).all if topic.partitions is None))
    with pytest.raises(WrongIdentity, match=message):
        prepare(wrong)
    assert_refused(settings, "`lately rescale --partitions 8` moves everything to new topics")


@pytest.mark.parametrize(
    ("config", "needed"),
    [
        ({"retention.bytes": "1000000"}, "retention.bytes=-1"),
        ({"retention.ms": "1000"}, "retention.ms=-1"),
        ({"max.message.bytes": "100000"}, "max.message.bytes=1048588"),
        ({"cleanup.policy": "compact,delete"}, "cleanup.policy=delete"),
    ],
)
def test_a_log_of_events_that_may_be_deleted_or_refuse_an_event_is_refused(settings: Settings, config, needed):
    prepare(settings)
    alter(settings, Topics(settings).orders.name, **config)
    assert_refused(settings, needed)
    alter(settings, Topics(settings).orders.name, **dict([needed.split("=")]))
    eventually(lambda: not refuses(settings))


def test_settings_that_keep_and_accept_more_are_no_mistake(settings: Settings):
    prepare(settings)
    alter(settings, Topics(settings).orders.name, **{"max.message.bytes": "4000000"})
    alter(settings, Topics(settings).co_purchases.name, **{"retention.ms": "-1"})
    alter(settings, Topics(settings).changelog("by_user"), **{"delete.retention.ms": "172800000"})
    prepare(settings)
