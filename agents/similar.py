"""co-purchases -> similar."""

import time

from faust.types import StreamT

from app.core import app, co_purchases
from chunks import Chunk
from tables import similar


@app.agent(co_purchases)
async def update_similar(stream: StreamT[Chunk]) -> None:
    """Apply the deltas of products: their buyers, and the products with common buyers."""
    throttle = app.throttle
    async for chunk in stream:
        for _offset, product, record in chunk.records:
            started_at = time.perf_counter()
            similar.apply_record(chunk, product, record)
            await throttle.pause(started_at, chunk.tp.topic)  # a record takes as long as a step of another agent
