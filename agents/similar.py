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
        for record in chunk.records:
            started_at = time.perf_counter()
            sales = similar.apply_record(chunk, record)
            if sales is not None:
                product_sales.write_later(chunk, record[1] or b"", sales)
            await throttle.pause(started_at, chunk.tp.topic)  # a record takes as long as a step of another agent
