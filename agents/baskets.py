"""purchase-changes -> baskets, and the resulting changes of products to co-purchases."""

import time

from faust.types import StreamT

from app.core import app, purchase_changes
from chunks import Chunk
from domain.co_purchases import DeltaAccumulator
from tables import baskets


@app.agent(purchase_changes)
async def update_baskets(stream: StreamT[Chunk]) -> None:
    """Apply changes to the users' baskets, and send the deltas of the products."""
    throttle = app.throttle
    async for chunk in stream:
        deltas = DeltaAccumulator()
        for record in chunk.records:
            started_at = time.perf_counter()
            baskets.apply_record(chunk, record, deltas)
            await throttle.pause(started_at, chunk.tp.topic)  # a record takes as long as a step of another agent
        baskets.send_deltas(chunk, deltas)
