"""The new generation of a `lately rescale`: its settings, its preconditions and its topics."""

from __future__ import annotations

import dataclasses

from app.control import generation, source_state, state_topic
from app.control.source_state import Generation, TopicLayout
from app.errors import BadSetting, BadTopic, WrongGeneration
from app.kafka.admin import ensure_topics, missing_topics
from app.kafka.client import explain_errors
from app.kafka.consume import open_consumer, partitions_of
from app.kafka.topic_metadata import count_partitions
from app.settings import Settings
from app.topics import Topics
from source.publisher import open_publisher


def next_generation(settings: Settings, partitions: int) -> Settings:
    """The settings of the next generation. Raises BadSetting if the number of partitions stays the same."""
    if partitions == settings.partitions:
        raise BadSetting(f"--partitions {partitions}: LATELY_PARTITIONS is {partitions} already: choose another number")
    return dataclasses.replace(settings, partitions=partitions, generation=settings.generation + 1)


async def read_layouts(old: Settings, new: Settings) -> tuple[bool, TopicLayout | None]:
    """Return whether the old generation is superseded, and the layout of the new one, None if it was not begun.

    Raises WrongGeneration, BadSetting, BadTopic, ServerAway if the rescale cannot continue.
    """
    states = await state_topic.read(old)
    layout = generation.current_layout(old, states)
    is_superseded = layout.successor == (new.generation, new.partitions)
    if not is_superseded:
        generation.require_active(old, states)
        if layout.predecessor is not None:
            raise WrongGeneration(
                f"generation {layout.predecessor[0]} of the topics still exists: first run `lately rescale --cleanup`"
            )
    # Whoever has altered the topics rescales to repair it.
    missing = await missing_topics(old, may_have_more_partitions=True)
    if missing:
        raise BadTopic(f"nothing to rescale, these topics do not exist: {', '.join(missing)}; check LATELY_ID")
    new_states = await state_topic.read(new)
    if new_states.layout is None:
        return is_superseded, None
    begun = generation.current_layout(new, new_states)
    if begun.partitions != new.partitions:
        raise BadSetting(
            f"a rescale to {begun.partitions} partitions was begun: continue it with --partitions {begun.partitions}, "
            "or delete it with --abandon"
        )
    return is_superseded, begun


async def begin_generation(old: Settings, new: Settings) -> None:
    """Create the topics of a new generation and record its layout. It can be repeated.

    Raises BadTopic if topics with these names exist already, and ServerAway.
    """
    await require_unused(new)
    try:
        await ensure_topics(new)
    except BadTopic as exc:
        raise BadTopic(f"another rescale was begun ({exc}): `lately rescale --abandon` deletes it") from None
    await write_states(
        new, TopicLayout(partitions=new.partitions, predecessor=Generation(old.generation, old.partitions))
    )


async def require_unused(settings: Settings) -> None:
    """Raise BadTopic if a topic of this generation contains records although no rescale was begun."""
    async with open_consumer(settings) as consumer:
        names = (topic.name for topic in Topics(settings).all)
        existing = await count_partitions(consumer, names)
        for name, partitions in sorted(existing.items()):
            tps = partitions_of(name, partitions)
            if any((await consumer.end_offsets(tps)).values()):
                raise BadTopic(
                    f"topic {name} holds records, but no rescale was begun with these settings: "
                    "another application uses it; choose another LATELY_TOPIC_PREFIX or LATELY_ID"
                )


async def write_states(settings: Settings, *states: source_state.State) -> None:
    """Write states to the topic source-state of a generation. Raises ServerAway."""
    async with explain_errors(settings), open_publisher(settings, Topics(settings)) as publisher:
        await publisher.write_states(*states)
