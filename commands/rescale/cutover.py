"""Waiting for the workers of two generations of the topics, and switching from the one to the other."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable

import msgspec

from app.control import generation, source_state
from app.control.source_state import Generation, TopicLayout
from app.errors import ServerAway
from app.kafka.lag import LagReader
from app.polling import poll_until
from app.settings import Settings
from commands.rescale.log_copy import LogCopy
from commands.rescale.next_generation import write_down
from commands.rescale.source_handover import Lead

#: How long the workers may need to apply what was published last, once nothing more comes.
PATIENCE_S = 60
AGAIN_AFTER_S = 0.5
#: Workers that need no longer than this to apply what there was when it began are up to date, s.
MOMENT_S = 5.0


class Switch:
    """The steps of `lately rescale` that need both generations: waiting for their workers, and the switch itself."""

    def __init__(
        self, old: Settings, new: Settings, copy: LogCopy, old_behind: LagReader, new_behind: LagReader
    ) -> None:
        self._old, self._new, self._copy = old, new, copy
        self._old_behind, self._new_behind = old_behind, new_behind

    async def wait_for_workers(self, within_s: int, say: Callable[[str], None]) -> None:
        """Copy on until workers of the new generation have applied all that there was a moment ago."""
        began = marked = time.monotonic()
        told, ends = False, await self._new_behind.end_offsets()
        while True:
            await self._copy.catch_up()
            workers, left = len(await self._new_behind.list_workers()), await self._new_behind.count_unread(ends)
            if workers and not left:
                if time.monotonic() - marked < MOMENT_S:
                    return
                marked, ends = time.monotonic(), await self._new_behind.end_offsets()
                continue
            if not told:
                start = (
                    f"start its workers and sources with LATELY_GENERATION={self._new.generation} "
                    f"LATELY_PARTITIONS={self._new.partitions} beside the old ones; "
                )
                say(
                    f"{self._copy.copied.events:,} events are in generation {self._new.generation}; "
                    f"{'' if workers else start}waiting for its workers to read all"
                )
                told = True
            if within_s and time.monotonic() - began > within_s:
                raise ServerAway(
                    f"{workers} workers of generation {self._new.generation} run, and {left} records are left to be "
                    "read: run this again, it goes on"
                )
            await asyncio.sleep(AGAIN_AFTER_S)

    async def settle(self) -> None:
        """Copy the rest, and wait until the workers of both generations have applied all of it."""
        await self._copy.catch_up()
        for settings, one in ((self._old, self._old_behind), (self._new, self._new_behind)):

            async def count_unread(settings: Settings = settings, reader: LagReader = one) -> int:
                unread = await reader.count_unread()
                if unread and not await reader.list_workers():
                    raise ServerAway(
                        f"no worker of generation {settings.generation} runs, and {unread} records are left to be "
                        "read: start one, then run this again"
                    )
                return unread

            unread = await poll_until(count_unread, PATIENCE_S, AGAIN_AFTER_S, is_done=operator.not_)
            if unread:
                raise ServerAway(
                    f"the workers of generation {settings.generation} have {unread} records left to read, "
                    f"{PATIENCE_S} s after the last was published: see that they run, then run this again"
                )

    async def finish(self, lead: Lead) -> None:
        """The steps 6 to 9 of `run`."""
        await lead.require()
        # 6.
        at = generation.current_layout(self._old, await source_state.read(self._old))
        successor = Generation(self._new.generation, self._new.partitions)
        await write_down(self._old, msgspec.structs.replace(at, successor=successor))
        # 7. Whoever leads from now on sees it, and nobody leads who began before; so this is the end of the topic.
        await lead.require()
        await self._copy.catch_up(unreadable=True)
        # 8.
        await self._copy.copy_letters()
        known = await source_state.read(self._old)
        kept = [state for state in (known.snapshot, known.watermark) if state is not None]
        # 9.
        now = await lead.require()
        before = Generation(self._old.generation, self._old.partitions)
        await write_down(
            self._new, *kept, TopicLayout(partitions=self._new.partitions, predecessor=before, active_since=now)
        )
