"""orders -> by_user, and the totals by product on to product-partials."""

from agents.reading import readable
from app.core import app, orders, settings
from tables import by_user, product_partials


@app.agent(orders)
async def remember_purchases(stream):
    """Add every event to its user's purchases, and what it changed to the totals of its product."""
    async for chunk in stream:
        differences = by_user.remember(chunk, readable(chunk, "by_user"))
        if settings.by_product:
            product_partials.add(chunk, differences)
