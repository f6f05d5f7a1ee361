"""Generations of the topics: `lately rescale` replaces one by the next.

The topic source-state of each generation contains its layout and is never deleted. A process that
was started with the settings of a previous generation therefore never writes to topics that nobody
reads any more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.control import state_topic
from app.control.source_state import Generation, SourceStates, TopicLayout
from app.errors import WrongGeneration
from app.settings import Settings


def current_layout(settings: Settings, states: SourceStates) -> TopicLayout:
    """Return the layout of this generation.

    Raises WrongGeneration when it does not exist or is abandoned.
    """
    layout = states.layout
    if layout is not None and layout.is_abandoned:
        raise WrongGeneration(
            f"generation {settings.generation} of the topics is abandoned: run `lately rescale --abandon` with the "
            "settings of the previous generation to delete the rest of it"
        )
    if layout is not None:
        return layout
    if settings.generation == 1:
        return TopicLayout(partitions=settings.partitions, active_since=0)
    raise WrongGeneration(
        f"there is no generation {settings.generation} of the topics: create it with `lately rescale`, run with the "
        "settings of the existing generation, or correct LATELY_GENERATION"
    )


def require_not_superseded(settings: Settings, states: SourceStates) -> TopicLayout:
    """Return the layout of this generation.

    Raises WrongGeneration when another generation has replaced it.
    """
    layout = current_layout(settings, states)
    if layout.successor is not None:
        raise WrongGeneration(describe_successor(settings, layout.successor))
    return layout


def describe_successor(settings: Settings, successor: Generation) -> str:
    """Return a message: which generation has replaced this one, and what to do."""
    number, partitions = successor
    return (
        f"generation {number} of the topics has replaced generation {settings.generation}: "
        f"set LATELY_GENERATION={number} and LATELY_PARTITIONS={partitions}"
    )


def require_active(settings: Settings, states: SourceStates) -> None:
    """Raise WrongGeneration unless the source publishes to this generation."""
    if require_not_superseded(settings, states).active_since is None:
        raise WrongGeneration(
            f"generation {settings.generation} of the topics is still being filled: "
            f"`lately rescale --partitions {settings.partitions}`, run with the settings of the previous generation, "
            "switches to it"
        )


async def read_neighbor_generations(settings: Settings) -> list[Settings]:
    """Return settings for the other generations whose topics exist.

    These are the previous generation until it is deleted, and the next generation while it is being
    filled.
    """
    layout = current_layout(settings, await state_topic.read(settings))
    neighbors = []
    if layout.predecessor is not None:
        number, partitions = layout.predecessor
        neighbors.append(dataclasses.replace(settings, generation=number, partitions=partitions))
    next_settings = dataclasses.replace(settings, generation=settings.generation + 1)
    next_layout = (await state_topic.read(next_settings)).layout
    if next_layout is not None:
        neighbors.append(dataclasses.replace(next_settings, partitions=next_layout.partitions))
    return neighbors


@asynccontextmanager
async def require_active_generation(settings: Settings) -> AsyncIterator[None]:
    """Check at the start and at the end that this generation is active. Raises WrongGeneration.

    A switch of generations copies the events that were published before it. Events published after
    it are not copied, so the check at the end reports a switch that happened in between.
    """
    require_active(settings, await state_topic.read(settings))
    yield
    require_active(settings, await state_topic.read(settings))
