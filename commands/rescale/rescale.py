"""`lately rescale`: another number of partitions, in a new generation of topics and tables beside the old one.

docs/decisions/013-another-generation.md explains why nothing is lost or counted twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from app.kafka.consume import open_consumer
from app.kafka.lag import open_lag_reader
from app.settings import Settings
from app.topics import Topics
from commands.changelogs import open_changelogs
from commands.rescale.compare_generations import GenerationComparison
from commands.rescale.cutover import Cutover
from commands.rescale.log_copy import open_log_copy, partitions_to_copy
from commands.rescale.next_generation import begin_generation, next_generation, read_layouts
from commands.rescale.source_handover import hold_source_locks
from commands.tables.dump import temporary_stores
from domain.differences import PurchaseDifference


@dataclass
class RescaleResult:
    """Result of a rescale. `paused_s` is the pause of the source; `was_done`: the new generation was active before."""

    generation: int
    partitions: int
    events: int = 0
    users: int = 0
    differences: list[PurchaseDifference] = field(default_factory=list)
    different_totals: list[str] = field(default_factory=list)
    switched: bool = False
    was_done: bool = False
    paused_s: float = 0.0

    def to_dict(self) -> dict[str, object]:
        """Fields of the JSON output."""
        return {
            "generation": self.generation, "partitions": self.partitions, "events": self.events, "users": self.users,
            "differences": len(self.differences) + len(self.different_totals), "switched": self.switched,
            "already": self.was_done,
            "paused_s": round(self.paused_s, 1),
        }  # fmt: skip


@dataclass(frozen=True)
class RescaleOptions:
    """Longest wait for the new workers (s, 0: no limit), and permission to switch in spite of differences."""

    within_s: int = 0
    ignore_differences: bool = False


async def dry_run(settings: Settings, partitions: int) -> tuple[Settings, int]:
    """The settings of the new generation and the number of offsets to copy. Raises BadSetting, ServerAway."""
    new = next_generation(settings, partitions)
    await read_layouts(settings, new)
    async with open_consumer(settings) as consumer:
        tps = await partitions_to_copy(consumer, Topics(settings))
        starts, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
    return new, sum(ends[tp] - starts[tp] for tp in tps)


async def run(
    settings: Settings,
    partitions: int,
    options: RescaleOptions,
    report: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> RescaleResult:
    """Fill a new generation, wait for its workers, compare and switch. After a kill, a repetition continues.

    1. Create the new topics. 2. Copy the events until the new workers are up to date. 3. Compare the tables.
    4. Hold the leader's lock: nobody publishes, changes wait in the database. 5. Copy the rest, wait until both
    generations have applied it, and compare the users that may differ. 6. Record the successor of the old generation.
    7. Copy the events that arrived before step 6. 8. Copy the open dead letters and the state of the source.
    9. Record that the new generation is active; its sources begin to publish.

    If this ends before 6, the old source continues; after 6 only the new one can publish, once 9 is done.
    Raises BadSetting, WrongGeneration, StillRunning, ServerAway, BadTopic, BadSource.
    """
    new = next_generation(settings, partitions)
    result = RescaleResult(new.generation, new.partitions)
    is_superseded, begun = await read_layouts(settings, new)
    if begun is not None and begun.active_since is not None:
        result.switched = result.was_done = True
        return result
    # 1.
    if begun is None:
        await begin_generation(settings, new)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        copy = await enter(open_log_copy(settings, new))
        old_lag, new_lag = await enter(open_lag_reader(settings)), await enter(open_lag_reader(new))
        cutover = Cutover(settings, new, copy, old_lag, new_lag)
        # 2.
        await copy.catch_up(progress, include_unreadable=is_superseded)
        comparison = None
        if not is_superseded:
            await cutover.wait_for_workers(options.within_s, report)
            # 3.
            old_logs, new_logs = await enter(open_changelogs(settings)), await enter(open_changelogs(new))
            stores = stack.enter_context(temporary_stores(settings))
            comparison = GenerationComparison(settings, old_logs, new, new_logs, stores)
            await comparison.compare_all()
            result.users = comparison.users
            # Apply the events of the meantime now, so that step 5 is short.
            await cutover.wait_for_workers(options.within_s, report)
        # 4.
        source_locks = await enter(hold_source_locks(settings))
        paused_at = time.monotonic()
        # 5.
        if comparison is not None:
            await cutover.settle(is_compared=not options.ignore_differences)
            await source_locks.require()
            result.differences, result.different_totals = await comparison.find_differences()
        if options.ignore_differences or not (result.differences or result.different_totals):
            await cutover.finish(source_locks)
            result.switched = True
        result.events, result.paused_s = copy.progress.events, time.monotonic() - paused_at
    return result
