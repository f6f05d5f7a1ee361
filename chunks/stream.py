"""`async for chunk in stream`: the agent's side of the tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import faust

from chunks.chunk import Chunk

TURNS = 4


class Stream(faust.Stream):
    """Replaces: one event at a time, acknowledged by itself. Yields chunks; asking for the next one ends the step.

    A step that raises is never committed: its records are read again by whoever has the partition then.
    """

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        self._finalized = True
        await self.maybe_start()
        tables = self.app.tables
        while not self.should_stop:
            try:
                event = await self.channel.get()
            except StopAsyncIteration:
                return  # how a channel says that it was stopped
            message = event.message
            task = tables.partition_tasks.get(message.tp)
            if task is None or message.generation_id != self.app.consumer_generation_id:
                continue  # of an assignment that has ended; whoever has the partition now reads it
            chunk = task.begin_step(message.value)
            if chunk is None:
                continue
            tables.before_step()
            yield chunk
            await task.end_step(chunk)
            # A request needs some turns of the loop until it is answered: all of them between two steps.
            for _ in range(TURNS):
                await asyncio.sleep(0)
