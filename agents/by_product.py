"""product-partials -> by_product."""

from faust.types import StreamT

from app.core import app, product_partials
from chunks import Chunk
from tables import by_product


@app.agent(product_partials)
async def update_by_product(stream: StreamT[Chunk]) -> None:
    """Apply the newest totals of each product from every partition of `orders`."""
    async for chunk in stream:
        by_product.apply_partials(chunk)
