"""Which generation of the topics counts: there is one before a `lately rescale`, another one after it.

The topic source-state of each generation says where that one stands, and is never deleted: so a process that was
started with the settings of before writes to nothing that nobody reads any more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from app.control import source_state
from app.control.source_state import Layout
from app.errors import WrongGeneration
from app.settings import Settings


def layout(settings: Settings, known: Mapping[str, source_state.State]) -> Layout:
    """Where this generation stands, by what its source-state has. Raises WrongGeneration when there is none such."""
    said = known.get(source_state.LAYOUT)
    if said is not None and said.given_up:
        raise WrongGeneration(
            f"generation {settings.generation} of the topics is given up: `lately rescale --abandon`, with the "
            "settings of the one before, deletes what is left of it"
        )
    if said is not None:
        return said
    if settings.generation == 1:
        return Layout(partitions=settings.partitions, since=0)
    raise WrongGeneration(
        f"there is no generation {settings.generation} of the topics: `lately rescale` makes one, run with the "
        "settings of the generation that there is; or correct LATELY_GENERATION"
    )


def refuse_former(settings: Settings, known: Mapping[str, source_state.State]) -> Layout:
    """Where this generation stands. Raises WrongGeneration where another one has taken over."""
    at = layout(settings, known)
    if at.after is not None:
        raise WrongGeneration(taken_over(settings, at))
    return at


def taken_over(settings: Settings, at: Layout) -> str:
    """Which generation has taken over from this one, and what to do, in words."""
    generation, partitions = at.after
    return (
        f"generation {generation} of the topics has taken over from generation {settings.generation}: "
        f"set LATELY_GENERATION={generation} and LATELY_PARTITIONS={partitions}"
    )


def refuse_other(settings: Settings, known: Mapping[str, source_state.State]) -> None:
    """Raise WrongGeneration unless this is the generation that the source publishes to."""
    if refuse_former(settings, known).since is None:
        raise WrongGeneration(
            f"generation {settings.generation} of the topics is still being filled: "
            f"`lately rescale --partitions {settings.partitions}`, with the settings of the one before, switches to it"
        )


async def require_begun(settings: Settings) -> None:
    """Raise WrongGeneration where no worker or source may start: it does not exist, or another one has taken over."""
    refuse_former(settings, await source_state.read(settings))


async def beside(settings: Settings) -> list[Settings]:
    """The generations whose topics are there, too: the one before until it is deleted, one that is being filled."""
    at = layout(settings, await source_state.read(settings))
    found = []
    if at.before is not None:
        found.append(dataclasses.replace(settings, generation=at.before[0], partitions=at.before[1]))
    following = dataclasses.replace(settings, generation=settings.generation + 1)
    begun = (await source_state.read(following)).get(source_state.LAYOUT)
    if begun is not None:
        found.append(dataclasses.replace(following, partitions=begun.partitions))
    return found


@asynccontextmanager
async def counting(settings: Settings) -> AsyncIterator[None]:
    """What is published to `orders` within counts; else WrongGeneration is raised, at the latest at the end.

    A switch copies what was published before it was written down. What was published later is not copied, and whoever
    did it looks after that whether there was one.
    """
    refuse_other(settings, await source_state.read(settings))
    yield
    refuse_other(settings, await source_state.read(settings))
