"""orders -> by_user, and its changes to product-partials and purchase-changes."""

import time
from contextlib import suppress
from functools import partial

from faust.types import StreamT

from agents.decode import decode_events
from app import metrics, otel
from app.core import app, orders, settings
from chunks import Chunk
from domain.values import parse_rfc3339
from tables import baskets, by_user, product_partials


@app.agent(orders)
async def update_by_user(stream: StreamT[Chunk]) -> None:
    """Apply every event to its user's purchases, and its price change to its product's totals."""
    async for chunk in stream:
        changes = baskets.pending_changes(chunk) if settings.similar else None
        events = decode_events(chunk, "by_user")
        topic, partition = chunk.tp
        with otel.processing(topic, partition, app.consumer_group, events):
            price_changes = by_user.apply_events(chunk, events, changes)
        if settings.by_product:
            product_partials.add_price_changes(chunk, price_changes)
        if events:
            chunk.after_commit(partial(_observe_freshness, events[-1][2].time))


def _observe_freshness(captured_at: str) -> None:
    with suppress(ValueError):  # other producers of events may write any text
        captured = parse_rfc3339(captured_at)
        metrics.FRESHNESS.observe(time.time() - captured.timestamp())
