"""The generation of the topics that a `lately rescale` fills: its settings, whether it may begin, and its topics."""

from __future__ import annotations

import dataclasses

from aiokafka import TopicPartition

from app.control import generation, source_state
from app.control.source_state import Generation, TopicLayout
from app.errors import BadSetting, BadTopic, WrongGeneration
from app.kafka.admin import ensure_topics, missing_topics
from app.kafka.client import explain_errors
from app.kafka.consume import open_consumer
from app.settings import Settings
from app.topics import Topics
from source.publisher import open_publisher


def next_generation(settings: Settings, partitions: int) -> Settings:
    """The settings of the generation after this one. Raises BadSetting where the number stays the same."""
    if partitions == settings.partitions:
        raise BadSetting(
            f"--partitions {partitions}: LATELY_PARTITIONS is {partitions} already, so nothing would change"
        )
    return dataclasses.replace(settings, partitions=partitions, generation=settings.generation + 1)


async def stands(old: Settings, new: Settings) -> tuple[bool, TopicLayout | None]:
    """Whether the old generation is a former one already, and where the new one stands, if it was begun.

    Raises WrongGeneration, BadSetting, BadTopic, ServerAway where a rescale from one to the other cannot go on.
    """
    known = await source_state.read(old)
    at = generation.current_layout(old, known)
    former = at.successor == (new.generation, new.partitions)
    if not former:
        generation.require_active(old, known)
        if at.predecessor is not None:
            raise WrongGeneration(
                f"generation {at.predecessor[0]} of the topics is still there: `lately rescale --cleanup` first"
            )
    missing = await missing_topics(old)
    if missing:
        raise BadTopic(f"there is nothing to rescale, topics are missing: {', '.join(missing)}; look at LATELY_ID")
    known = await source_state.read(new)
    if known.layout is None:
        return former, None
    begun = generation.current_layout(new, known)
    if begun.partitions != new.partitions:
        raise BadSetting(
            f"a rescale to {begun.partitions} partitions is under way: go on with --partitions {begun.partitions}, "
            "or give it up with --abandon"
        )
    return former, begun


async def begin(old: Settings, new: Settings) -> None:
    """Make the topics of a new generation, and write down what it is. To repeat it is harmless.

    Raises BadTopic where topics of these names were there before, and ServerAway.
    """
    await require_unused(new)
    try:
        await ensure_topics(new)
    except BadTopic as exc:
        raise BadTopic(f"a rescale was begun before ({exc}): `lately rescale --abandon` gives that up") from None
    await write_down(
        new, TopicLayout(partitions=new.partitions, predecessor=Generation(old.generation, old.partitions))
    )


async def require_unused(settings: Settings) -> None:
    """Raise BadTopic where a topic of this generation, which nobody has begun, holds records: it is somebody else's."""
    async with open_consumer(settings) as consumer:
        there = await consumer.topics()
        for name in sorted({topic.name for topic in Topics(settings).all} & there):
            tps = [TopicPartition(name, number) for number in consumer.partitions_for_topic(name) or ()]
            if any((await consumer.end_offsets(tps)).values()):
                raise BadTopic(
                    f"topic {name} holds records, but no rescale of these settings was begun: "
                    "it is somebody else's, and LATELY_TOPIC_PREFIX or LATELY_ID has to be another one"
                )


async def write_down(settings: Settings, *states: source_state.State) -> None:
    """Write states to the source-state of a generation. Raises ServerAway."""
    async with explain_errors(settings), open_publisher(settings, Topics(settings)) as publisher:
        await publisher.write_states(*states)
