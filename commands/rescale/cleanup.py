"""`lately rescale --cleanup` and `--abandon`: delete the topics of an unused generation."""

from __future__ import annotations

import dataclasses
import operator
from typing import NamedTuple

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code

from app.control import generation, source_state, state_topic
from app.control.source_state import TopicLayout
from app.errors import BadTopic, ServerAway, StillRunning, WrongGeneration
from app.kafka.admin import admin_client
from app.kafka.groups import committed_offsets, list_groups, workers_of_group
from app.kafka.topic_metadata import count_partitions
from app.polling import poll_until
from app.settings import Settings
from app.topics import Topics
from commands.rescale.next_generation import require_unused, write_states
from domain.values import rfc3339

#: Longest time in which the broker deletes topics, s.
DELETE_TIMEOUT_S = 60
POLL_INTERVAL_S = 0.2
#: Kafka's error code for a topic that is deleted already.
UNKNOWN_TOPIC = 3


class DeletedGeneration(NamedTuple):
    """The deleted generation and its topics; for a dry run, what would be deleted."""

    generation: int
    topics: list[str]


async def cleanup(settings: Settings, dry_run: bool = False) -> DeletedGeneration:
    """Delete the previous generation. This one must be active and verified. It can be repeated.

    1. Check that `lately verify` found no difference since the cutover, and that no group reads the old topics.
    2. Delete all of them except source-state, which stops later processes with the old settings. 3. Record that there
    is no previous generation.

    Raises WrongGeneration, StillRunning, ServerAway, BadTopic.
    """
    states = await state_topic.read(settings)
    generation.require_active(settings, states)
    layout = generation.current_layout(settings, states)
    if layout.predecessor is None:
        raise WrongGeneration(f"there is no generation before {settings.generation}: nothing to clean up")
    old = dataclasses.replace(settings, generation=layout.predecessor[0], partitions=layout.predecessor[1])
    # 1.
    _require_verified(layout, states.verified)
    async with admin_client(settings) as admin:
        names = await _existing(admin, old)
        await _require_unread(admin, names)
        names = [name for name in names if name != Topics(old).source_state.name]
        if not dry_run:
            # 2.
            await _delete(admin, names)
            # 3.
            await write_states(settings, msgspec.structs.replace(layout, predecessor=None))
    return DeletedGeneration(old.generation, names)


async def abandon(settings: Settings, dry_run: bool = False) -> DeletedGeneration:
    """Delete the next generation, which is not active yet. Raises as `cleanup`.

    1. Check that it is not active, and that no group reads it. 2. Record that it is abandoned: a partly deleted copy
    must not be continued. 3. Delete it, source-state last: while it exists, no new rescale can begin, and this command
    can be repeated.
    """
    # 1.
    generation.require_active(settings, await state_topic.read(settings))
    new = dataclasses.replace(settings, generation=settings.generation + 1)
    begun = (await state_topic.read(new)).layout
    if begun is None:
        await require_unused(new)
    elif begun.active_since is not None:
        raise WrongGeneration(f"generation {new.generation} of the topics is active already: it cannot be abandoned")
    async with admin_client(settings) as admin:
        names = await _existing(admin, new)
        if not names:
            raise WrongGeneration("no rescale was begun: nothing to abandon")
        await _require_unread(admin, names)
        if not dry_run:
            # 2.
            if begun is not None:
                await write_states(new, msgspec.structs.replace(begun, is_abandoned=True))
            # 3.
            last = Topics(new).source_state.name
            await _delete(admin, [name for name in names if name != last])
            await _delete(admin, [last])
    return DeletedGeneration(new.generation, names)


def _require_verified(layout: TopicLayout, verified: source_state.VerifyResult | None) -> None:
    active_since = layout.active_since or 0
    if verified is None or verified.began_at < active_since or verified.clean_at != verified.began_at:
        raise WrongGeneration(
            f"the tables were not compared with MySQL since the cutover ({rfc3339(active_since)}), or differed: "
            "first run `lately verify`, and `lately verify --repair` if it finds differences"
        )


async def _existing(admin: AIOKafkaAdminClient, settings: Settings) -> list[str]:
    names = (topic.name for topic in Topics(settings).all)
    return sorted(await count_partitions(admin, names))


async def _require_unread(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Raise StillRunning if a group with members has read one of these topics."""
    for group in await list_groups(admin):
        topics = {tp.topic for tp in await committed_offsets(admin, group)} & set(names)
        if topics and (workers := await workers_of_group(admin, group)):
            raise StillRunning(
                f"the group {group} still reads {', '.join(sorted(topics))}: stop {', '.join(workers)}; a killed "
                "worker counts until LATELY_SESSION_TIMEOUT_S has passed"
            )


async def _delete(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    if not names:
        return
    answer = await admin.delete_topics(names)
    for name, code, *_ in answer.topic_error_codes:
        if code not in (0, UNKNOWN_TOPIC):
            raise BadTopic(f"topic {name} could not be deleted ({for_code(code).__name__}): see delete.topic.enable")

    async def remaining() -> set[str]:
        return set(await count_partitions(admin, names))

    if await poll_until(remaining, DELETE_TIMEOUT_S, POLL_INTERVAL_S, is_done=operator.not_):
        raise ServerAway(f"Kafka still lists deleted topics after {DELETE_TIMEOUT_S} s: repeat the command")
