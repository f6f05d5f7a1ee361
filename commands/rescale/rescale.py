"""`lately rescale`: another number of partitions, in a new generation of topics and tables beside the old one.

The argument why nothing is lost or doubled is in docs/decisions/013-another-generation.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from app.kafka.consume import open_consumer
from app.kafka.lag import open_lag_reader
from app.settings import Settings
from app.topics import Topics
from commands.changelogs import open_changelogs
from commands.rescale.compare_generations import Audit
from commands.rescale.cutover import Switch
from commands.rescale.log_copy import copying
from commands.rescale.next_generation import begin, next_generation, stands
from commands.rescale.source_handover import leading
from commands.tables.dump import folder
from domain.differences import PurchaseDifference


@dataclass
class Outcome:
    """What a rescale has done: `paused_s` is for how long the source had to wait, `already` that nothing was left."""

    generation: int
    partitions: int
    events: int = 0
    users: int = 0
    found: list[PurchaseDifference] = field(default_factory=list)
    products: list[str] = field(default_factory=list)
    switched: bool = False
    already: bool = False
    paused_s: float = 0.0

    def shown(self) -> dict[str, object]:
        """The same for people and programs."""
        return {
            "generation": self.generation, "partitions": self.partitions, "events": self.events, "users": self.users,
            "differences": len(self.found) + len(self.products), "switched": self.switched,
            "already": self.already,
            "paused_s": round(self.paused_s, 1),
        }  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """How long to wait for the new workers (s, 0: for ever), and whether to switch despite differences."""

    within_s: int = 0
    anyway: bool = False


async def dry_run(settings: Settings, partitions: int) -> tuple[Settings, int]:
    """The settings of the new generation, and how many offsets would be copied. Raises BadSetting, ServerAway."""
    new = next_generation(settings, partitions)
    await stands(settings, new)
    async with open_consumer(settings) as consumer:
        tps = [TopicPartition(Topics(settings).orders.name, number) for number in range(settings.partitions)]
        firsts, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
    return new, sum(ends[tp] - firsts[tp] for tp in tps)


async def run(
    settings: Settings,
    partitions: int,
    asked: Asked,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Fill a new generation, wait for its workers, compare and switch; killed anywhere, it goes on when it is repeated.

    1. Make the new topics. 2. Copy the events, as long as the new workers are not up to date. 3. Compare the tables.
    4. Hold the leader's lock: nobody publishes, changes wait in the database. 5. Copy the rest, wait until both
    generations have applied it, and compare what may differ. 6. Write down that the old generation is a former one.
    7. Copy what came before that was written. 8. Copy the open dead letters and what the source knows of itself.
    9. Write down that the new generation counts; its sources begin to publish.

    Until 6 the old source takes over again when this ends; from then on only the new one does, once 9 is done.
    Raises BadSetting, WrongGeneration, StillRunning, ServerAway, BadTopic, BadSource.
    """
    new = next_generation(settings, partitions)
    outcome = Outcome(new.generation, new.partitions)
    former, begun = await stands(settings, new)
    if begun is not None and begun.active_since is not None:
        outcome.switched = outcome.already = True
        return outcome
    # 1.
    if begun is None:
        await begin(settings, new)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        copy, old_behind, new_behind = [
            await enter(one) for one in (copying(settings, new), open_lag_reader(settings), open_lag_reader(new))
        ]
        switch = Switch(settings, new, copy, old_behind, new_behind)
        # 2.
        await copy.catch_up(progress, unreadable=former)
        audit = None
        if not former:
            await switch.wait_for_workers(asked.within_s, say)
            # 3.
            logs = [await enter(open_changelogs(one)) for one in (settings, new)]
            audit = Audit(settings, logs[0], new, logs[1], stack.enter_context(folder(settings)))
            await audit.compare_all()
            outcome.users = audit.users
            # What came meanwhile, so that 5 has little left to do.
            await switch.wait_for_workers(asked.within_s, say)
        # 4.
        lead = await enter(leading(settings))
        began = time.monotonic()
        # 5.
        if audit is not None:
            await switch.settle()
            await lead.require()
            outcome.found, outcome.products = await audit.decide()
        if asked.anyway or not (outcome.found or outcome.products):
            await switch.finish(lead)
            outcome.switched = True
        outcome.events, outcome.paused_s = copy.copied.events, time.monotonic() - began
    return outcome
