"""Administrative access to Kafka: the admin client, creation of missing topics, checks of existing topics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from app.errors import BadTopic, ServerAway
from app.kafka.client import client, reachable
from app.settings import Settings
from app.topics import Topic, Topics

#: Timeout of the first connection to the broker, and for created topics to appear in its metadata, s.
BROKER_PATIENCE_S = 30


async def ensure_topics(settings: Settings, more: Iterable[Topic] = ()) -> None:
    """Create the topics that are missing and check the others; `more` are those of agents of your own.

    Raises ServerAway when no broker answers, BadTopic when a topic has the wrong number of partitions or the wrong
    cleanup policy.
    """
    async with admin_client(settings) as admin:
        topics = {topic.name: topic for topic in (*Topics(settings).all, *more)}
        await _create(admin, settings, topics)
        await _check(admin, settings, topics)


async def missing_topics(settings: Settings) -> list[str]:
    """The topics that are not there yet; the others are checked. Raises ServerAway, BadTopic."""
    async with admin_client(settings) as admin:
        topics = {topic.name: topic for topic in Topics(settings).all}
        found = set(topics) & set(await admin.list_topics())
        if found:
            await _check(admin, settings, {name: topics[name] for name in found})
        return sorted(set(topics) - found)


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client for what only administrators do. Raises ServerAway."""
    admin = AIOKafkaAdminClient(**client(settings), request_timeout_ms=10_000)
    async with reachable(settings):
        try:
            await asyncio.wait_for(admin.start(), BROKER_PATIENCE_S)
            yield admin
        finally:
            await admin.close()


async def _create(admin: AIOKafkaAdminClient, settings: Settings, topics: dict[str, Topic]) -> None:
    missing = sorted(set(topics) - set(await admin.list_topics()))
    if not missing:
        return
    answer = await admin.create_topics(
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
    for name, code, message, *_ in answer.topic_errors:
        # 36: another worker, starting at the same time, was faster.
        if code not in (0, 36):
            raise BadTopic(f"topic {name} could not be created: {message or for_code(code).__name__}")
    await _wait_until_listed(admin, set(missing))


async def _wait_until_listed(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    # A created topic shows in the metadata a moment later, which a busy machine makes longer.
    until = time.monotonic() + BROKER_PATIENCE_S
    while True:
        described = await admin.describe_topics(sorted(names))
        hidden = [topic["topic"] for topic in described if topic["error_code"] or not topic["partitions"]]
        if not hidden:
            return
        if time.monotonic() > until:
            raise ServerAway(
                f"topics {', '.join(hidden)} were created, but {BROKER_PATIENCE_S} s later the broker does not list "
                "them: look at its log and load, then start again"
            )
        await asyncio.sleep(0.05)


async def _check(admin: AIOKafkaAdminClient, settings: Settings, topics: dict[str, Topic]) -> None:
    for described in await admin.describe_topics(sorted(topics)):
        name, count = described["topic"], len(described["partitions"])
        wanted = topics[name].partitions
        if wanted is not None and count != wanted:
            raise BadTopic(f"topic {name} has {count} partitions, but must have {wanted}: delete it, it is made anew")
        if wanted is None and count != settings.partitions:
            raise BadTopic(
                f"topic {name} has {count} partitions, but LATELY_PARTITIONS is {settings.partitions}: "
                "set it to the topic's number; `lately rescale` changes that"
            )
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, {"cleanup.policy": ""}) for name in sorted(topics)]
    for answer in await admin.describe_configs(resources):
        for _, _, _, name, entries in answer.resources:
            _check_policy(topics[name], {entry[0]: entry[1] for entry in entries})


def _check_policy(topic: Topic, config: dict[str, str]) -> None:
    wanted, found = topic.config["cleanup.policy"], config.get("cleanup.policy")
    if found is not None and found != wanted:
        raise BadTopic(
            f"topic {topic.name} has cleanup.policy={found}, but must have {wanted}: "
            f"set it with kafka-configs.sh --alter --entity-type topics --entity-name {topic.name} "
            f"--add-config cleanup.policy={wanted}"
        )
