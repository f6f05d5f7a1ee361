"""co-purchases -> similar."""

import time

from app.core import app, co_purchases
from tables import similar


@app.agent(co_purchases)
async def count_together(stream):
    """Count for each product who bought it, and with which others."""
    async for chunk in stream:
        for _offset, product, record in chunk.records:
            began = time.perf_counter()
            similar.add(chunk, product, record)
            await app.throttle.pause(began, chunk.tp.topic)  # a record is as much work as a step elsewhere
