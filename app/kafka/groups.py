"""The agents of a process and its consumer group: processes with other agents are in other groups."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from aiokafka import TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata

from app.errors import BadSetting, StillRunning
from app.kafka.admin import BROKER_PATIENCE_S, admin_client
from app.settings import Settings

T = TypeVar("T")

#: Between the app's name, which cannot have one, and the agents of a group.
PLUS = "+"
LOOK_AGAIN_S = 0.5
#: What a broker says while it still makes or reads the topic in which it keeps its groups.
_LOADING = (
    errors.GroupLoadInProgressError,
    errors.GroupCoordinatorNotAvailableError,
    errors.NotCoordinatorForGroupError,
)


def by_default(readers: Mapping[str, str]) -> tuple[str, ...]:
    """Of all agents, each with the topic that it reads, those that a process runs when nothing else is said.

    A process reads a topic once, so of agents that read the same one it is the first.
    """
    first: dict[str, str] = {}
    for agent, topic in readers.items():
        first.setdefault(topic, agent)
    return tuple(first.values())


def chosen(readers: Mapping[str, str], named: str) -> tuple[str, ...]:
    """The agents that LATELY_AGENTS names, in the order of `readers`; empty: those by default. Raises BadSetting."""
    names = [name.strip() for name in named.split(",") if name.strip()]
    if not names:
        return by_default(readers)
    for name in names:
        if name not in readers:
            raise BadSetting(f"LATELY_AGENTS: there is no agent {name!r}; there are {', '.join(readers)}")
    found: dict[str, str] = {}
    for agent in (agent for agent in readers if agent in names):
        other = found.setdefault(readers[agent], agent)
        if other != agent:
            raise BadSetting(
                f"LATELY_AGENTS: {other} and {agent} both read {readers[agent]}, which a process does once: "
                "give each of them a process of its own"
            )
    return tuple(found.values())


def owner(table: str, fed_by: str, readers: Mapping[str, str]) -> str | None:
    """The agent that writes a table: that of the same name, else the first that reads the topic it is fed by."""
    if table in readers:
        return table
    return next((agent for agent, topic in readers.items() if topic == fed_by), None)


def group(app_id: str, agents: Sequence[str], readers: Mapping[str, str]) -> str:
    """The consumer group of the processes that run these agents; by default it is the app's name."""
    return app_id if tuple(agents) == by_default(readers) else PLUS.join([app_id, *agents])


async def demand_no_other(
    settings: Settings, own: str, agents: Sequence[str], readers: Mapping[str, str], protocol: str
) -> None:
    """Wait for workers to end with which one of `own` cannot run, as long as a killed one counts.

    Those of other groups that run one of these agents: both would take the partitions from each other again and again.
    Those of its own group whose assignment is not called `protocol`. Raises StillRunning, ServerAway.
    """
    until = time.monotonic() + 2 * settings.session_timeout_s
    async with admin_client(settings) as admin:
        while rival := await _rivals(admin, settings, own, agents, readers, protocol):
            if time.monotonic() > until:
                raise StillRunning(rival)
            await asyncio.sleep(LOOK_AGAIN_S)


def _rival(
    found: Mapping[str, list[str]], own: str, agents: Sequence[str], readers: Mapping[str, str]
) -> str | None:  # fmt: skip
    for name, workers in found.items():
        theirs = name.split(PLUS)[1:] or by_default(readers)
        twice = [agent for agent in agents if agent in theirs]
        if name != own and workers and twice:
            return (
                f"{', '.join(twice)} would run twice: {len(workers)} workers run {','.join(theirs)} already "
                f"({', '.join(workers)}); stop them, or give this one the same LATELY_AGENTS"
            )
    return None


async def _rivals(
    admin: AIOKafkaAdminClient, settings: Settings, own: str, agents: Sequence[str], readers: Mapping[str, str],
    protocol: str,
) -> str | None:  # fmt: skip
    found = await _described_all(admin, settings)
    rival = _rival({name: workers for name, (_, workers) in found.items()}, own, agents, readers)
    return rival or _of_another_version(own, *found.get(own, ("", [])), protocol)


def _of_another_version(own: str, spoken: str, workers: list[str], protocol: str) -> str | None:
    if workers and spoken not in ("", protocol):
        return f"{len(workers)} workers of another version run in the group {own}: stop them all, then start this one"
    return None


async def members(admin: AIOKafkaAdminClient, settings: Settings) -> dict[str, list[str]]:
    """Group -> its workers, of all groups of this app that Kafka knows. Raises KafkaError."""
    return {name: workers for name, (_, workers) in (await _described_all(admin, settings)).items()}


async def members_of(admin: AIOKafkaAdminClient, group: str) -> list[str]:
    """Who is in one group: host and client. Raises KafkaError."""
    _, found = await _described(admin, group)
    return found


async def listed(admin: AIOKafkaAdminClient) -> list[str]:
    """All groups that Kafka knows. Raises KafkaError."""
    return [name for name, *_ in await _once_loaded(admin.list_consumer_groups)]


async def offsets_of(admin: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """What one group has committed. Raises KafkaError."""
    return await _once_loaded(lambda: admin.list_consumer_group_offsets(group))


async def _described_all(admin: AIOKafkaAdminClient, settings: Settings) -> dict[str, tuple[str, list[str]]]:
    known = sorted(name for name in await listed(admin) if name.split(PLUS)[0] == settings.group)
    return {name: await _described(admin, name) for name in known}


async def _described(admin: AIOKafkaAdminClient, group: str) -> tuple[str, list[str]]:
    """The name of the assignment that a group speaks, and who is in it.

    Several groups have to be asked about one by one: aiokafka cannot read an answer about two.
    """

    async def ask() -> tuple[str, list[str]]:
        (answer,) = await admin.describe_consumer_groups([group])
        ((code, _, _, _, spoken, found, *_),) = answer.groups
        # aiokafka raises none of these, and whoever is not known to a broker that reads its groups has no members.
        if code not in (0, errors.GroupIdNotFound.errno):
            raise errors.for_code(code)(group)
        return spoken, sorted(f"{host.lstrip('/')} ({name})" for _, name, host, *_ in found)

    return await _once_loaded(ask)


async def _once_loaded(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer of a broker about its groups: one that has just started is asked again until it knows them."""
    until = time.monotonic() + BROKER_PATIENCE_S
    while True:
        try:
            return await ask()
        except _LOADING:
            if time.monotonic() > until:
                raise
        await asyncio.sleep(LOOK_AGAIN_S)
