"""Agents and consumer group of a process: processes with other agents use other groups."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from aiokafka import TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata

from app.errors import BadSetting, StillRunning
from app.kafka.admin import BROKER_TIMEOUT_S, admin_client
from app.kafka.consume import open_consumer
from app.polling import poll_until
from app.settings import Settings

T = TypeVar("T")

#: Separates the app's name, which cannot contain it, from the agents of a group.
GROUP_SEPARATOR = "+"
POLL_INTERVAL_S = 0.5
#: Errors of a broker that still creates or reads the topic with the consumer groups.
_LOADING = (
    errors.GroupLoadInProgressError,
    errors.GroupCoordinatorNotAvailableError,
    errors.NotCoordinatorForGroupError,
)


class GroupDescription(NamedTuple):
    """The group's workers as "host (client)", and its assignment protocol ("" without workers).

    `assignments` are the encoded assignments of the members; during a rebalance there are none.
    """

    protocol: str
    workers: list[str]
    assignments: list[bytes]


def default_agents(source_topics: Mapping[str, str]) -> tuple[str, ...]:
    """Return the agents that a process runs by default.

    `source_topics` maps each agent to its topic. A process reads a topic once, so only the first
    agent of each topic runs.
    """
    agents: dict[str, str] = {}
    for agent, topic in source_topics.items():
        agents.setdefault(topic, agent)
    return tuple(agents.values())


def select_agents(source_topics: Mapping[str, str], setting: str) -> tuple[str, ...]:
    """Return the agents that LATELY_AGENTS names, in the order of `source_topics`.

    An empty setting selects the default agents. Raises BadSetting for an unknown agent, and for two
    agents that read the same topic.
    """
    names = [name.strip() for name in setting.split(",") if name.strip()]
    if not names:
        return default_agents(source_topics)
    for name in names:
        if name not in source_topics:
            raise BadSetting(f"LATELY_AGENTS: there is no agent {name!r}; there are {', '.join(source_topics)}")
    selected: dict[str, str] = {}
    for agent in (agent for agent in source_topics if agent in names):
        first = selected.setdefault(source_topics[agent], agent)
        if first != agent:
            raise BadSetting(
                f"LATELY_AGENTS: {first} and {agent} both read {source_topics[agent]}, which a process does once: "
                "give each of them a process of its own"
            )
    return tuple(selected.values())


def writer_agent(table: str, source_topic: str, source_topics: Mapping[str, str]) -> str | None:
    """Return the agent that writes a table.

    It has the name of the table, or else it is the first agent that reads `source_topic`.
    """
    if table in source_topics:
        return table
    return next((agent for agent, topic in source_topics.items() if topic == source_topic), None)


def app_of_group(group: str) -> str:
    """Return the name of the app of a group, from the group's name."""
    return group.split(GROUP_SEPARATOR)[0]


def agents_of_group(group: str, source_topics: Mapping[str, str]) -> tuple[str, ...]:
    """Return the agents that the processes of a group run, from the group's name."""
    return tuple(group.split(GROUP_SEPARATOR)[1:]) or default_agents(source_topics)


def group_name(app_id: str, agents: Sequence[str], source_topics: Mapping[str, str]) -> str:
    """Return the consumer group of processes that run these agents.

    The group of the default agents has the name of the app.
    """
    return app_id if tuple(agents) == default_agents(source_topics) else GROUP_SEPARATOR.join([app_id, *agents])


async def require_no_rival(
    settings: Settings, group: str, agents: Sequence[str], source_topics: Mapping[str, str], protocol: str
) -> None:
    """Wait until no worker runs that excludes a worker of `group`. Raises StillRunning, ServerAway.

    Two kinds of workers exclude it: workers of another group that run one of `agents`, because the
    groups would fence each other's producers forever, and workers of the same group with an
    assignment protocol other than `protocol`. The wait is longer than a session, because a killed
    worker counts as running until its session ends.
    """
    async with admin_client(settings) as admin:

        async def find_conflict() -> str | None:
            groups = await describe_app_groups(admin, settings)
            description = groups.get(group, GroupDescription("", [], []))
            return _agent_conflict(groups, group, agents, source_topics) or _protocol_conflict(
                group, description, protocol
            )

        within_s = 2 * settings.session_timeout_s
        conflict = await poll_until(find_conflict, within_s, POLL_INTERVAL_S, is_done=lambda text: text is None)
        if conflict is not None:
            raise StillRunning(conflict)


def _agent_conflict(
    groups: Mapping[str, GroupDescription], group: str, agents: Sequence[str], source_topics: Mapping[str, str]
) -> str | None:
    """Describe the workers of another group that run one of `agents`, if any."""
    for name, (_, workers, _) in groups.items():
        group_agents = agents_of_group(name, source_topics)
        duplicates = [agent for agent in agents if agent in group_agents]
        if name != group and workers and duplicates:
            return (
                f"{', '.join(duplicates)} would run twice: {len(workers)} workers run {','.join(group_agents)} already "
                f"({', '.join(workers)}); stop them, or give this one the same LATELY_AGENTS"
            )
    return None


def _protocol_conflict(group: str, description: GroupDescription, protocol: str) -> str | None:
    """Describe the workers of the group that use another assignment protocol, if any."""
    if description.workers and description.protocol not in ("", protocol):
        return (
            f"{len(description.workers)} workers of another version run in the group {group}: "
            "stop them all, then start this one"
        )
    return None


async def workers_by_group(admin: AIOKafkaAdminClient, settings: Settings) -> dict[str, list[str]]:
    """Map each group of this app to its workers ("host (client)"). Raises KafkaError."""
    return {name: description.workers for name, description in (await describe_app_groups(admin, settings)).items()}


async def workers_of_group(admin: AIOKafkaAdminClient, group: str) -> list[str]:
    """Return the members of one group ("host (client)"). Raises KafkaError."""
    return (await _describe_group(admin, group)).workers


async def list_groups(admin: AIOKafkaAdminClient) -> list[str]:
    """Return the names of all groups of the cluster. Raises KafkaError."""
    # Without ids, aiokafka requests the metadata of all topics to find the brokers.
    brokers = [broker.nodeId for broker in admin._client.cluster.brokers()]  # noqa: SLF001 - see above
    return [name for name, *_ in await _retry_while_loading(partial(admin.list_consumer_groups, brokers))]


async def list_app_groups(admin: AIOKafkaAdminClient, settings: Settings) -> list[str]:
    """Return the names of the groups of this app, in their order. Raises KafkaError."""
    return sorted(name for name in await list_groups(admin) if app_of_group(name) == settings.group)


async def committed_offsets(admin: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return the offsets that one group has committed. Raises KafkaError."""

    async def list_offsets() -> dict[TopicPartition, OffsetAndMetadata]:
        offsets: dict[TopicPartition, OffsetAndMetadata] = await admin.list_consumer_group_offsets(group)
        return offsets

    return await _retry_while_loading(list_offsets)


async def move_back(settings: Settings, positions: Mapping[TopicPartition, int]) -> None:
    """Lower the offsets that the groups of this app have committed to `positions`.

    No worker may run. Raises ServerAway.
    """
    async with admin_client(settings) as admin:
        for name in await list_app_groups(admin, settings):
            committed = await committed_offsets(admin, name)
            higher = {
                tp: offset for tp, offset in positions.items() if tp in committed and committed[tp].offset > offset
            }
            if higher:
                async with open_consumer(settings, group_id=name) as consumer:
                    consumer.assign(list(higher))
                    await consumer.commit(higher)


async def positions(
    admin: AIOKafkaAdminClient, group: str, coordinator: int, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """Return the offsets that one group has committed in `partitions`, 0 where there is none.

    This is one request to `coordinator`, the broker that `admin.find_coordinator` returns. Raises
    KafkaError, also when another broker is the coordinator now.
    """
    committed = await admin.list_consumer_group_offsets(group, coordinator, list(partitions))
    if len(committed) < len(partitions):
        # aiokafka ignores an error that concerns the group: the response contains no partitions.
        raise errors.NotCoordinatorForGroupError(group)
    return {tp: max(0, offset) for tp, (offset, _) in committed.items()}


async def describe_app_groups(
    admin: AIOKafkaAdminClient, settings: Settings, except_for: str | None = None
) -> dict[str, GroupDescription]:
    """Describe each group of this app but `except_for`. Raises KafkaError."""
    names = await list_app_groups(admin, settings)
    return {name: await _describe_group(admin, name) for name in names if name != except_for}


async def _describe_group(admin: AIOKafkaAdminClient, group: str) -> GroupDescription:
    """Describe one group: aiokafka cannot parse a response about several groups."""

    async def describe() -> GroupDescription:
        (response,) = await admin.describe_consumer_groups([group])
        ((code, _, _, _, protocol, members, *_),) = response.groups
        # aiokafka does not raise these errors. A group that the broker does not contain has no
        # members.
        if code not in (0, errors.GroupIdNotFound.errno):
            raise errors.for_code(code)(group)
        workers = sorted(f"{host.lstrip('/')} ({client})" for _, client, host, *_ in members)
        assignments = [assignment for *_, assignment in sorted(members) if assignment]
        return GroupDescription(protocol, workers, assignments)

    return await _retry_while_loading(describe)


async def _retry_while_loading(request: Callable[[], Awaitable[T]]) -> T:
    """Repeat a request until the broker has loaded its groups, some time after its start."""

    async def attempt() -> T | errors.KafkaError:
        try:
            return await request()
        except _LOADING as exc:
            return exc

    result = await poll_until(
        attempt, BROKER_TIMEOUT_S, POLL_INTERVAL_S, is_done=lambda result: not isinstance(result, _LOADING)
    )
    if isinstance(result, _LOADING):
        raise result
    return result
