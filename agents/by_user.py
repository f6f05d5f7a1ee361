"""orders -> by_user, and on to orders-by-product."""

from agents.reading import readable
from app.core import app, orders, orders_by_product
from tables import by_user


@app.agent(orders)
async def remember_purchases(stream):
    """Add every event to its user's purchases and hand it on under its product."""
    async for event, message in readable(stream, "by_user"):
        by_user.remember(event)
        orders_by_product.send_soon(key=event.data.product_name.encode(), value=message.value)
