"""orders -> by_user, the totals by product on to product-partials, and what was bought on to purchase-changes."""

import time
from contextlib import suppress
from datetime import datetime
from functools import partial

from agents.reading import readable
from app import metrics, otel
from app.core import app, orders, settings
from tables import baskets, by_user, product_partials


@app.agent(orders)
async def remember_purchases(stream):
    """Add every event to its user's purchases, and what it changed to the totals of its product."""
    async for chunk in stream:
        changes = baskets.changes(chunk) if settings.similar else None
        events = readable(chunk, "by_user")
        with otel.processing(*chunk.tp, app.tables.group_id, events):
            differences = by_user.remember(chunk, events, changes)
        if settings.by_product:
            product_partials.add(chunk, differences)
        if events:
            chunk.when_shown(partial(_shown, events[-1][2].time))


def _shown(captured: str) -> None:
    with suppress(ValueError):  # other producers of events may write what they like
        metrics.FRESHNESS.observe(time.time() - datetime.fromisoformat(captured.replace("Z", "+00:00")).timestamp())
