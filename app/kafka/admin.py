"""Administrative access to Kafka: the admin client, creation and checks of topics."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaTimeoutError, TopicAlreadyExistsError, for_code

from app.errors import BadTopic, KafkaAway
from app.kafka.client import client_options, explain_errors
from app.kafka.consume import open_consumer, partitions_of
from app.kafka.topic_metadata import count_partitions
from app.polling import poll_until
from app.settings import Settings
from app.topics import Topic, Topics

#: Timeout of the first connection to the broker, and of the wait for created topics, s.
BROKER_TIMEOUT_S = 30
#: Interval between two looks at the broker's metadata, s.
METADATA_POLL_S = 0.05
REQUEST_TIMEOUT_MS = 10_000
#: The settings of a topic that could delete or refuse a record.
_CHECKED_SETTINGS = ("cleanup.policy", "retention.ms", "retention.bytes", "delete.retention.ms", "max.message.bytes")


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open a client for topics and consumer groups. Raises ServerAway, Refused."""
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=REQUEST_TIMEOUT_MS)
    async with explain_errors(settings):
        try:
            await asyncio.wait_for(admin.start(), BROKER_TIMEOUT_S)
            yield admin
        finally:
            await admin.close()


async def ensure_topics(settings: Settings, extra_topics: Iterable[Topic] = (), *, has_tables: bool = False) -> None:
    """Create the missing topics and check the others; `extra_topics` belong to additional agents.

    `has_tables`: tables with LATELY_PARTITIONS partitions exist.

    Raises ServerAway when no broker answers, BadTopic when a topic has the wrong number of
    partitions or the wrong cleanup policy.
    """
    async with admin_client(settings) as admin:
        topics = {topic.name: topic for topic in (*Topics(settings).all, *extra_topics)}
        await _create(admin, settings, topics)
        await _check(admin, settings, topics, has_tables)


async def missing_topics(settings: Settings, *, may_have_more_partitions: bool = False) -> list[str]:
    """Return the names of the missing topics, and check the others. Raises ServerAway, BadTopic."""
    async with admin_client(settings) as admin:
        topics = {topic.name: topic for topic in Topics(settings).all}
        existing = await count_partitions(admin, topics)
        if existing:
            checked = {
                name: topics[name]
                for name, partitions in existing.items()
                if not (may_have_more_partitions and partitions > settings.partitions)
            }
            await _check(admin, settings, checked, has_tables=False)
        return sorted(set(topics) - set(existing))


async def _create(admin: AIOKafkaAdminClient, settings: Settings, topics: Mapping[str, Topic]) -> None:
    existing = await count_partitions(admin, topics)
    missing = sorted(set(topics) - set(existing))
    if not missing:
        return
    response = await admin.create_topics(
        [
            NewTopic(
                name,
                topics[name].partitions or settings.partitions,
                settings.replication,
                topic_configs=topics[name].config,
            )
            for name in missing
        ]
    )
    for name, code, message, *_ in response.topic_errors:
        # Another worker that starts at the same time may have created the topic.
        if code not in (0, TopicAlreadyExistsError.errno):
            raise BadTopic(f"topic {name} could not be created: {message or for_code(code).__name__}")
    await _wait_for_leaders(settings, await _wait_until_listed(admin, set(missing)))


async def _wait_until_listed(admin: AIOKafkaAdminClient, names: set[str]) -> dict[str, int]:
    """Wait until the metadata contains new topics, which takes longer on a busy machine.

    Return the number of partitions of each: another client may have created the topic.
    """
    counts: dict[str, int] = {}

    async def unlisted() -> list[str]:
        described = await admin.describe_topics(sorted(names))
        counts.update({topic["topic"]: len(topic["partitions"]) for topic in described if not topic["error_code"]})
        return [name for name in sorted(names) if not counts.get(name)]

    pending = await poll_until(unlisted, BROKER_TIMEOUT_S, METADATA_POLL_S, is_done=operator.not_)
    if pending:
        raise KafkaAway(
            f"topics {', '.join(pending)} were created, but {BROKER_TIMEOUT_S} s later the broker does not list "
            "them: look at its log and load, then start again"
        )
    return counts


async def _wait_for_leaders(settings: Settings, partitions: Mapping[str, int]) -> None:
    """Wait until the leaders of new partitions serve them, which a broker lists shortly before.

    Until then the client logs an error for each read of an offset. `partitions` contains the number
    of partitions of each topic.
    """
    all_partitions = [tp for name, count in partitions.items() for tp in partitions_of(name, count)]
    async with open_consumer(settings) as consumer:
        try:
            await asyncio.wait_for(consumer.beginning_offsets(all_partitions), BROKER_TIMEOUT_S)
        except (asyncio.TimeoutError, KafkaTimeoutError):
            raise KafkaAway(
                f"topics {', '.join(partitions)} were created, but {BROKER_TIMEOUT_S} s later not all of their "
                "partitions have a leader: look at the brokers' logs and load, then start again"
            ) from None


async def _check(admin: AIOKafkaAdminClient, settings: Settings, topics: Mapping[str, Topic], has_tables: bool) -> None:
    for described in await admin.describe_topics(sorted(topics)):
        name, partitions = described["topic"], len(described["partitions"])
        expected = topics[name].partitions
        if expected is not None and partitions != expected:
            raise BadTopic(
                f"topic {name} has {partitions} partitions, but must have {expected}: "
                "delete it, Lately creates it again"
            )
        if expected is None and partitions != settings.partitions:
            raise BadTopic(
                f"topic {name} has {partitions} partitions, but LATELY_PARTITIONS is {settings.partitions}: "
                + (
                    f"it was altered; `lately rescale --partitions {partitions}` moves everything to new topics"
                    if has_tables and partitions > settings.partitions
                    else "set it to the topic's number of partitions; `lately rescale` changes the topics"
                )
            )
    resources = [
        ConfigResource(ConfigResourceType.TOPIC, name, dict.fromkeys(_CHECKED_SETTINGS, "")) for name in sorted(topics)
    ]
    for response in await admin.describe_configs(resources):
        for _, _, _, name, entries in response.resources:
            _check_config(topics[name], {entry[0]: entry[1] for entry in entries})


def _check_config(topic: Topic, config: Mapping[str, str]) -> None:
    """Raise BadTopic for settings of a topic that delete or refuse records which Lately needs."""
    wrong = {
        name: expected
        for name, expected in topic.config.items()
        if name in _CHECKED_SETTINGS and not _is_sufficient(name, config.get(name), expected)
    }
    if wrong:
        actual = ", ".join(f"{name}={config[name]}" for name in wrong)
        needed = ",".join(f"{name}={expected}" for name, expected in wrong.items())
        raise BadTopic(
            f"topic {topic.name} has {actual}, but must have {needed}: "
            f"set it with kafka-configs.sh --alter --entity-type topics --entity-name {topic.name} "
            f"--add-config {needed}"
        )


def _is_sufficient(name: str, actual: str | None, expected: str) -> bool:
    """Return whether a setting keeps and accepts as many records as `expected`; None: unknown."""
    if actual is None or actual == expected:
        return True
    if name == "cleanup.policy":
        return False
    unlimited = "-1"
    return actual == unlimited or (expected != unlimited and int(actual) >= int(expected))
