"""orders-by-product -> by_product."""

from agents.reading import readable
from app.core import app, orders_by_product
from tables import by_product


@app.agent(orders_by_product)
async def count_purchases(stream):
    """Add every event to the totals of its product."""
    async for event, message in readable(stream, "by_product", keyed_by="product_name"):
        by_product.count(event, message.partition)
