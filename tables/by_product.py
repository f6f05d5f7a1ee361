"""by_product: product name -> its totals, from the newest partial of each partition of `orders`."""

from __future__ import annotations

from app.core import app, product_partials, settings
from chunks import Chunk
from domain.totals import Partial, Totals, decode_partial, merge_partials, sum_partials


def merge(chunk: Chunk) -> None:
    """Take over the partials of a chunk."""
    table = chunk.view(by_product)
    grouped: dict[bytes, list[Partial]] = {}
    for _offset, _key, value in chunk.records:
        partial = decode_partial(value)
        grouped.setdefault(partial.product_name.encode(), []).append(partial)
    table.update(
        {product: merge_partials(value, grouped[product]) for product, value in table.get_many(grouped).items()}
    )


by_product = app.Table(
    "by_product",
    source_topic=product_partials,
    partitions=settings.partitions,
    rebuild=merge,
    help="Partial totals of each product by partition of orders; msgpack, see domain.totals.merge_partials.",
)


def totals(product_name: str, partition: int) -> Totals | None:
    """How often the product was bought and for how much; None when it never was. The partition must be owned here."""
    value = by_product.read(partition, product_name.encode())
    return None if value is None else sum_partials(value)
