"""orders -> by_user, the totals by product on to product-partials, and what was bought on to purchase-changes."""

from agents.reading import readable
from app import tracing
from app.core import app, orders, settings
from tables import baskets, by_user, product_partials


@app.agent(orders)
async def remember_purchases(stream):
    """Add every event to its user's purchases, and what it changed to the totals of its product."""
    async for chunk in stream:
        changes = baskets.changes(chunk) if settings.similar else None
        events = readable(chunk, "by_user")
        with tracing.processing(*chunk.tp, settings.id, events):
            differences = by_user.remember(chunk, events, changes)
        if settings.by_product:
            product_partials.add(chunk, differences)
