"""co-purchases -> similar."""

import time

from faust.types import StreamT

from app.core import app, co_purchases
from chunks import Chunk
from tables import product_sales, similar


@app.agent(co_purchases)
async def update_similar(stream: StreamT[Chunk]) -> None:
    """Apply the deltas of products to their sales, and to the products with common buyers."""
    throttle = app.throttle
    async for chunk in stream:
        for _offset, product, record in chunk.records:
            started_at = time.perf_counter()
            assert product is not None, "co-purchases has no records without a key"
            product_sales.write_later(chunk, product, similar.apply_record(chunk, product, record))
            await throttle.pause(started_at, chunk.tp.topic)  # a record takes as long as a step of another agent
