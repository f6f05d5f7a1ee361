"""What an app and its topics belong to: recorded once, and compared at each start.

The names of topics and of the consumer group come from settings. Two apps with a common LATELY_ID
would therefore share their tables, and a changed LATELY_PARTITIONS would look for users in other
partitions. The topic `identity` of an app contains its AppIdentity, and the topic `source-state`
the layout of the topics (docs/decisions/022-identity.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from app.control import generation, state_topic
from app.control.source_state import AppIdentity, SourceStates, TopicLayout
from app.control.state_topic import StateCodec
from app.errors import WrongIdentity
from app.kafka import groups
from app.kafka.admin import admin_client, ensure_topics
from app.kafka.client import explain_errors
from app.kafka.produce import durable_producer
from app.kafka.topic_metadata import read_cluster_id
from app.settings import Settings
from app.topics import Topic, Topics


class PreparedTopics(NamedTuple):
    """The states in Kafka before the topics were prepared, and the id of the cluster."""

    states: SourceStates
    cluster: str


async def prepare_topics(settings: Settings, extra_topics: Iterable[Topic] = ()) -> PreparedTopics:
    """Create the missing topics of an app whose identity is right, and return what was read of them.

    1. Compare the layout and the identity with those in Kafka, if they are recorded.
    2. Create the missing topics, and check the others.
    3. Record what was not recorded.

    Raises WrongIdentity, WrongGeneration, BadTopic, ServerAway.
    """
    # 1.
    states = await state_topic.read(settings)
    layout = require_layout(settings, states)
    identity, recorded = await read_identities(settings)
    if recorded is None:
        await _require_unused_group(settings)
    else:
        _compare(settings, identity, recorded)
    # 2.
    await ensure_topics(settings, extra_topics, has_tables=states.layout is not None)
    # 3.
    async with explain_errors(settings):
        if states.layout is None:
            states.layout = layout
            await _write(settings, Topics(settings).source_state, layout)
        if recorded is None:
            await _record(settings, identity)
    return PreparedTopics(states, identity.cluster)


async def require_identity(settings: Settings) -> None:
    """Raise WrongIdentity if the app, or its topics, belong to something else; nothing is recorded.

    Raises ServerAway.
    """
    require_layout(settings, await state_topic.read(settings))
    identity, recorded = await read_identities(settings)
    if recorded is not None:
        _compare(settings, identity, recorded)


async def adopt(settings: Settings) -> AppIdentity:
    """Record the present settings as the identity of the app, whatever is recorded. Raises ServerAway."""
    await ensure_topics(settings)
    identity, _ = await read_identities(settings)
    adopted = msgspec.structs.replace(identity, is_adopted=True)
    async with explain_errors(settings):
        await _write(settings, Topics(settings).identity, adopted)
    return adopted


def require_layout(settings: Settings, states: SourceStates) -> TopicLayout:
    """Return the layout of the topics of this generation.

    Raises WrongIdentity for another number of partitions, WrongGeneration.
    """
    layout = generation.require_not_superseded(settings, states)
    if layout.partitions == settings.partitions:
        return layout
    raise WrongIdentity(
        f"LATELY_PARTITIONS is {settings.partitions}, but the topics and tables of {Topics(settings).orders.name} were "
        f"made with {layout.partitions}: set LATELY_PARTITIONS={layout.partitions}; "
        f"`lately rescale --partitions {settings.partitions}` changes the number"
    )


def _compare(settings: Settings, identity: AppIdentity, recorded: AppIdentity) -> None:
    if recorded.orders != identity.orders:
        raise WrongIdentity(
            f"the consumer group and the tables of LATELY_ID={settings.id} belong to the orders in {recorded.orders}, "
            f"but these settings read {identity.orders}: set another LATELY_ID, or the LATELY_TOPIC_PREFIX of the "
            "existing app"
        )
    if recorded.cluster != identity.cluster:
        raise WrongIdentity(
            f"the topics of LATELY_ID={settings.id} were copied from the Kafka cluster {recorded.cluster} to "
            f"{identity.cluster}: correct LATELY_KAFKA, or run `lately identity --adopt` once if they have moved"
        )
    if recorded.format > identity.format:
        raise WrongIdentity(
            f"the tables of LATELY_ID={settings.id} were written by a newer version of Lately (format "
            f"{recorded.format}): install that version"
        )


async def _require_unused_group(settings: Settings) -> None:
    """Raise WrongIdentity if an earlier version used this LATELY_ID for other topics."""
    orders = Topics(settings).orders.name
    async with admin_client(settings) as admin:
        offsets = await groups.committed_offsets(admin, settings.group)
        read = {tp.topic for tp in offsets}
    others = sorted(topic for topic in read if topic.endswith("orders") and topic != orders)
    if others and orders not in read:
        raise WrongIdentity(
            f"the consumer group of LATELY_ID={settings.id} belongs to the orders in {others[0]}, but these settings "
            f"read {orders}: set another LATELY_ID, or the LATELY_TOPIC_PREFIX of the existing app"
        )


async def read_identities(settings: Settings) -> tuple[AppIdentity, AppIdentity | None]:
    """Return the identity by these settings, and the recorded one; None: there is none. Raises ServerAway."""
    topics = Topics(settings)
    recorded: AppIdentity | None = None
    async with state_topic.open_reader(settings, topics.identity, is_caught_up=False) as reader:
        identity = AppIdentity(cluster=await read_cluster_id(reader.consumer), orders=topics.orders.name)
        async for record in reader.read_records():
            state = reader.codec.decode(record)
            if isinstance(state, AppIdentity) and (recorded is None or state.is_adopted):
                recorded = state
    return identity, recorded


async def _record(settings: Settings, identity: AppIdentity) -> None:
    """Record the identity of a new app. The order of the steps decides between two processes:

    1. Write the record.
    2. Read the topic: the first record is valid.
    3. If another one is first, write it again, because compaction keeps the newest one.

    Raises WrongIdentity, ServerAway, KafkaError.
    """
    topic = Topics(settings).identity
    # 1.
    await _write(settings, topic, identity)
    # 2.
    _, recorded = await read_identities(settings)
    # 3.
    if recorded is not None and recorded != identity:
        await _write(settings, topic, recorded)
        _compare(settings, identity, recorded)


async def _write(settings: Settings, topic: Topic, state: AppIdentity | TopicLayout) -> None:
    codec: StateCodec = state_topic.create_codec(settings, topic)
    async with durable_producer(settings) as producer:
        await state_topic.send(producer, codec, state)
