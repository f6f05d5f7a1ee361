"""co-purchases -> similar."""

import asyncio

from app.core import app, co_purchases
from tables import similar


@app.agent(co_purchases)
async def count_together(stream):
    """Count for each product who bought it, and with which others."""
    async for chunk in stream:
        for _offset, product, record in chunk.records:
            similar.add(chunk, product, record)
            await asyncio.sleep(0)  # a record is as much work as a step elsewhere
