"""`lately rescale --cleanup` and `--abandon`: the topics of a generation that nobody needs any more are deleted."""

from __future__ import annotations

import dataclasses
import operator
from typing import NamedTuple

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code

from app.control import generation, source_state
from app.control.source_state import TopicLayout
from app.errors import BadTopic, ServerAway, StillRunning, WrongGeneration
from app.kafka.admin import admin_client
from app.kafka.groups import committed_offsets, list_groups, workers_of_group
from app.polling import poll_until
from app.settings import Settings
from app.topics import Topics
from commands.rescale.next_generation import require_unused, write_down
from domain.values import rfc3339

#: How long the broker may need to delete topics, s.
PATIENCE_S = 60
AGAIN_AFTER_S = 0.2
#: Errors of Kafka: it is deleted already.
UNKNOWN_TOPIC = 3


class Deleted(NamedTuple):
    """Which generation was deleted, or would be, and its topics."""

    generation: int
    topics: list[str]


async def cleanup(settings: Settings, dry_run: bool = False) -> Deleted:
    """Delete the generation before this one, which has to count and be verified; repeating it changes nothing.

    1. See that `lately verify` found no difference since the switch, and that no group reads the old topics. 2. Delete
    them all but source-state, which goes on telling processes with the settings of before that they are late. 3. Write
    down that there is no generation before.

    Raises WrongGeneration, StillRunning, ServerAway, BadTopic.
    """
    known = await source_state.read(settings)
    generation.require_active(settings, known)
    at = generation.current_layout(settings, known)
    if at.predecessor is None:
        raise WrongGeneration(f"there is no generation before {settings.generation}: nothing to clean up")
    old = dataclasses.replace(settings, generation=at.predecessor[0], partitions=at.predecessor[1])
    # 1.
    _require_verified(at, known.verified)
    async with admin_client(settings) as admin:
        names = await _existing(admin, old)
        await _require_unread(admin, names)
        names = [name for name in names if name != Topics(old).source_state.name]
        if not dry_run:
            # 2.
            await _delete(admin, names)
            # 3.
            await write_down(settings, msgspec.structs.replace(at, predecessor=None))
    return Deleted(old.generation, names)


async def abandon(settings: Settings, dry_run: bool = False) -> Deleted:
    """Delete the generation after this one, which does not count yet. Raises as `cleanup` does.

    1. See that it was not switched to, and that no group reads it. 2. Write down that it is given up: a copy of which
    half is deleted must not be gone on with. 3. Delete it, source-state last: as long as that is there, nobody begins
    anew, and this can be repeated.
    """
    # 1.
    generation.require_active(settings, await source_state.read(settings))
    new = dataclasses.replace(settings, generation=settings.generation + 1)
    begun = (await source_state.read(new)).layout
    if begun is None:
        await require_unused(new)
    elif begun.active_since is not None:
        raise WrongGeneration(f"generation {new.generation} of the topics counts already: it is not to be given up")
    async with admin_client(settings) as admin:
        names = await _existing(admin, new)
        if not names:
            raise WrongGeneration("no rescale is under way: nothing to give up")
        await _require_unread(admin, names)
        if not dry_run:
            # 2.
            if begun is not None:
                await write_down(new, msgspec.structs.replace(begun, is_abandoned=True))
            # 3.
            last = Topics(new).source_state.name
            await _delete(admin, [name for name in names if name != last])
            await _delete(admin, [last])
    return Deleted(new.generation, names)


def _require_verified(at: TopicLayout, verified: source_state.VerifyResult | None) -> None:
    if verified is None or verified.began_at < at.active_since or verified.clean_at != verified.began_at:
        raise WrongGeneration(
            f"the tables were not compared with MySQL since the switch ({rfc3339(at.active_since)}), or differed: "
            "`lately verify` first, and `lately verify --repair` where it finds differences"
        )


async def _existing(admin: AIOKafkaAdminClient, settings: Settings) -> list[str]:
    there = set(await admin.list_topics())
    return sorted(topic.name for topic in Topics(settings).all if topic.name in there)


async def _require_unread(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Raise StillRunning when a group with members has read one of these topics."""
    for group in await list_groups(admin):
        reads = {tp.topic for tp in await committed_offsets(admin, group)} & set(names)
        if reads and (found := await workers_of_group(admin, group)):
            raise StillRunning(
                f"the group {group} still reads {', '.join(sorted(reads))}: stop {', '.join(found)}; one that was "
                "killed counts until LATELY_SESSION_TIMEOUT_S has passed"
            )


async def _delete(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    if not names:
        return
    answer = await admin.delete_topics(names)
    for name, code, *_ in answer.topic_error_codes:
        if code not in (0, UNKNOWN_TOPIC):
            raise BadTopic(f"topic {name} could not be deleted ({for_code(code).__name__}): see delete.topic.enable")

    async def remaining() -> set[str]:
        return set(names) & set(await admin.list_topics())

    if await poll_until(remaining, PATIENCE_S, AGAIN_AFTER_S, is_done=operator.not_):
        raise ServerAway(f"Kafka still lists deleted topics after {PATIENCE_S} s: run this again")
