"""purchase-changes -> baskets, and what that changed about products on to co-purchases."""

import time

from app.core import app, purchase_changes
from domain.co_purchases import DeltaAccumulator
from tables import baskets


@app.agent(purchase_changes)
async def fill_baskets(stream):
    """Keep which products each user counts for, and tell each product whose neighbour it became."""
    async for chunk in stream:
        deltas = DeltaAccumulator()
        for _offset, _key, record in chunk.records:
            began = time.perf_counter()
            baskets.fill(chunk, record, deltas)
            await app.throttle.pause(began, chunk.tp.topic)  # a record is as much work as a step elsewhere
        baskets.send(chunk, deltas)
