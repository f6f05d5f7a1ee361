"""Waits for the workers of two generations of the topics, and switches from one to the other."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable

import msgspec

from app.control import generation, state_topic
from app.control.source_state import Generation, TopicLayout
from app.errors import ServerAway
from app.kafka.lag import LagReader
from app.polling import poll_until
from app.settings import Settings
from commands.rescale.log_copy import LogCopy
from commands.rescale.next_generation import write_states
from commands.rescale.source_handover import HeldLocks

#: Longest time in which the workers apply the last events after publishing has stopped.
APPLY_TIMEOUT_S = 60
POLL_INTERVAL_S = 0.5
#: Workers that apply all current events within this time are up to date, s.
UP_TO_DATE_S = 5.0


class Cutover:
    """The steps of `lately rescale` that need both generations: waiting for their workers, and the cutover."""

    def __init__(self, old: Settings, new: Settings, copy: LogCopy, old_lag: LagReader, new_lag: LagReader) -> None:
        self._old, self._new, self._copy = old, new, copy
        self._old_lag, self._new_lag = old_lag, new_lag

    async def wait_for_workers(self, within_s: int, report: Callable[[str], None]) -> None:
        """Continue the copy until workers of the new generation are up to date."""
        started_at = ends_read_at = time.monotonic()
        is_reported, ends = False, await self._new_lag.end_offsets()
        while True:
            await self._copy.catch_up()
            workers, unread = len(await self._new_lag.list_workers()), await self._new_lag.count_unread(ends)
            if workers and not unread:
                if time.monotonic() - ends_read_at < UP_TO_DATE_S:
                    return
                ends_read_at, ends = time.monotonic(), await self._new_lag.end_offsets()
                continue
            if not is_reported:
                instruction = (
                    f"start its workers and sources with LATELY_GENERATION={self._new.generation} "
                    f"LATELY_PARTITIONS={self._new.partitions} beside the old ones; "
                )
                report(
                    f"{self._copy.progress.events:,} events are in generation {self._new.generation}; "
                    f"{'' if workers else instruction}waiting until its workers have read all"
                )
                is_reported = True
            if within_s and time.monotonic() - started_at > within_s:
                raise ServerAway(
                    f"{workers} workers of generation {self._new.generation} run, and {unread} records are unread: "
                    "repeat the command; it continues"
                )
            await asyncio.sleep(POLL_INTERVAL_S)

    async def settle(self, *, is_compared: bool) -> None:
        """Copy the rest, and wait until the workers have applied it: of both generations if their tables are compared.

        Workers of the old generation may not be able to start, because somebody has altered their topics.
        """
        await self._copy.catch_up()
        old = [(self._old, self._old_lag)] if is_compared else []
        for settings, lag_reader in (*old, (self._new, self._new_lag)):

            async def count_unread(settings: Settings = settings, reader: LagReader = lag_reader) -> int:
                unread = await reader.count_unread()
                if unread and not await reader.list_workers():
                    raise ServerAway(
                        f"no worker of generation {settings.generation} runs, and {unread} records are unread: "
                        "start one and repeat the command, or add --anyway to switch without a comparison"
                    )
                return unread

            unread = await poll_until(count_unread, APPLY_TIMEOUT_S, POLL_INTERVAL_S, is_done=operator.not_)
            if unread:
                raise ServerAway(
                    f"the workers of generation {settings.generation} have {unread} unread records "
                    f"{APPLY_TIMEOUT_S} s after the last publication: check that they run, then repeat the command"
                )

    async def finish(self, source_locks: HeldLocks) -> None:
        """Steps 6 to 9 of `rescale.run`."""
        await source_locks.require()
        # 6.
        layout = generation.current_layout(self._old, await state_topic.read(self._old))
        successor = Generation(self._new.generation, self._new.partitions)
        await write_states(self._old, msgspec.structs.replace(layout, successor=successor))
        # 7. Every later leader reads the layout, and no earlier leader is left: the end of the topic is final.
        await source_locks.require()
        await self._copy.catch_up(include_unreadable=True)
        # 8.
        await self._copy.copy_dead_letters()
        states = await state_topic.read(self._old)
        highest = 0 if states.status is None else states.status.highest_version
        capture = states.capture and msgspec.structs.replace(
            states.capture, highest_version=max(highest, states.capture.highest_version)
        )
        copied = [state for state in (states.snapshot, states.watermark, capture) if state is not None]
        # 9.
        now = await source_locks.require()
        predecessor = Generation(self._old.generation, self._old.partitions)
        await write_states(
            self._new, *copied, TopicLayout(partitions=self._new.partitions, predecessor=predecessor, active_since=now)
        )
