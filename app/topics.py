"""Every topic in one place: its name, who writes it, who reads it, and that it is as it must be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from app.errors import BadTopic, ServerAway
from app.kafka.client import client, reachable
from app.settings import Settings

FOR_EVER = {"cleanup.policy": "delete", "retention.ms": "-1"}
#: A dead letter is the record as it was and its headers, so it may be larger than a record of `orders`.
DEAD = {**FOR_EVER, "max.message.bytes": str(4 * 2**20)}
#: The largest request of any producer: a dead letter, and what Kafka puts around it.
MAX_REQUEST_BYTES = 5 * 2**20
#: What is read once and soon, and can be made again from `orders`.
WEEK = {"cleanup.policy": "delete", "retention.ms": str(7 * 86_400_000)}
COMPACTED = {"cleanup.policy": "compact"}
#: A record a second, of which only the newest counts: small segments, so that little of it is kept.
STATE = {**COMPACTED, "segment.bytes": str(2**20), "min.cleanable.dirty.ratio": "0.1"}

#: Header of the last record of a transaction in a changelog: the address of the worker that wrote it.
WORKER = "worker"

TABLES = ("by_user", "product_partials", "by_product", "baskets", "similar")

#: Header of records between two agents, see `origin`.
ORIGIN = "lately.origin"

#: How long the broker may need to answer at first, and to list topics that it has created, s.
BROKER_PATIENCE_S = 30


@dataclass(frozen=True)
class Topic:
    """A topic as it must be on the broker; of `config` only the cleanup policy is checked afterwards."""

    name: str
    config: dict[str, str]
    #: None: LATELY_PARTITIONS
    partitions: int | None = None


def origin(partition: int, position: int) -> bytes:
    """The header ORIGIN of a record that follows from what lies in a partition below the offset `position`."""
    return b"%d@%d" % (partition, position)


class Topics:
    """All topics of one set of settings."""

    def __init__(self, settings: Settings) -> None:
        named, group = settings.prefix, settings.group
        #: The event log: key user id, value event. Written by the source, read by agents/by_user.
        self.orders = Topic(f"{named}orders", FOR_EVER)
        #: Totals of a product over one partition of orders; key product and partition, lies where the product's table
        #: does. Written by agents/by_user, read by agents/by_product.
        self.product_partials = Topic(f"{group}-product-partials", COMPACTED)
        #: What was bought and taken back; lies where the user does, no key. Written by agents/by_user, read by
        #: agents/baskets.
        self.purchase_changes = Topic(f"{group}-purchase-changes", WEEK)
        #: What that changed about who bought what with what; key product. Written by agents/baskets, read by
        #: agents/similar.
        self.co_purchases = Topic(f"{group}-co-purchases", WEEK)
        #: What could not be read, as it was, with the reason in the headers. Written by the source and all agents.
        self.orders_dead = Topic(f"{named}orders-dead", DEAD)
        #: What the source knows of itself; key a word, value JSON. Written by the source, read by it and all workers.
        self.source_state = Topic(f"{named}source-state", STATE, partitions=1)
        #: The changelogs of the tables: only their table writes and reads them.
        self.changelogs = tuple(Topic(f"{group}-{table}-changelog", COMPACTED) for table in TABLES)
        #: Table -> the name of the topic whose agent writes it.
        self.feeding = {
            "by_user": self.orders.name, "product_partials": self.orders.name, "by_product": self.product_partials.name,
            "baskets": self.purchase_changes.name, "similar": self.co_purchases.name,
        }  # fmt: skip

    def changelog(self, table: str) -> str:
        """The name of a table's changelog topic."""
        return self.changelogs[TABLES.index(table)].name

    @property
    def all(self) -> tuple[Topic, ...]:
        return (
            self.orders, self.product_partials, self.purchase_changes, self.co_purchases, self.orders_dead,
            self.source_state, *self.changelogs,
        )  # fmt: skip


async def ensure_topics(settings: Settings, more: Iterable[Topic] = ()) -> None:
    """Create the topics that are missing and check the others; `more` are those of agents of your own.

    Raises ServerAway when no broker answers, BadTopic when a topic has the wrong number of partitions or the wrong
    cleanup policy.
    """
    async with administering(settings) as admin:
        topics = {topic.name: topic for topic in (*Topics(settings).all, *more)}
        await _create(admin, settings, topics)
        await _check(admin, settings, topics)


async def missing_topics(settings: Settings) -> list[str]:
    """The topics that are not there yet; the others are checked. Raises ServerAway, BadTopic."""
    async with administering(settings) as admin:
        topics = {topic.name: topic for topic in Topics(settings).all}
        found = set(topics) & set(await admin.list_topics())
        if found:
            await _check(admin, settings, {name: topics[name] for name in found})
        return sorted(set(topics) - found)


@asynccontextmanager
async def administering(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
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
