"""`async for chunk in stream`: the agent's side of the partition tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import faust
from faust.types import ChannelT

from chunks.app import ChunkedApp
from chunks.chunk import Chunk

#: Number of turns of the event loop between two steps: a request needs some of them until it is
#: answered.
LOOP_TURNS = 4


class Stream(faust.Stream[Chunk]):
    """Replaces: delivery and acknowledgement of single events.

    Yields chunks; a request for the next one ends the step. A step that raises is never committed:
    the next owner of the partition reads its records again.
    """

    app: ChunkedApp
    channel: ChannelT[Any]  # type: ignore[assignment]  # Faust declares the base type of all that it can iterate

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        self._finalized = True
        await self.maybe_start()
        tables = self.app.tables
        while not self.should_stop:
            try:
                event = await self.channel.get()
            except StopAsyncIteration:
                return  # the channel has stopped
            message = event.message
            task = tables.partition_tasks.get(message.tp)
            if task is None or message.generation_id != self.app.consumer_generation_id:
                continue  # from a former assignment; the current owner reads the records
            chunk = task.begin_step(message.value)  # type: ignore[arg-type]  # see Consumer._to_message
            if chunk is None:
                continue
            tables.before_step()
            yield chunk
            await task.end_step(chunk)
            for _ in range(LOOP_TURNS):
                await asyncio.sleep(0)
