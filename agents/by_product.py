"""product-partials -> by_product."""

from app.core import app, product_partials
from tables import by_product


@app.agent(product_partials)
async def add_up_purchases(stream):
    """Take over the newest totals of each product from every partition of `orders`."""
    async for chunk in stream:
        by_product.merge(chunk)
