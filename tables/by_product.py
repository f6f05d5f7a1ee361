"""by_product: product name -> its totals, from the newest partial of each partition of `orders`."""

from __future__ import annotations

from app.core import app, product_partials, settings
from chunks import Chunk, TableReader
from domain.totals import PartialTotals, Totals, decode_partial, merge_partials, sum_partials
from tables.unreadable import decode_record


def apply_partials(chunk: Chunk) -> None:
    """Apply the partials of a chunk."""
    _apply(chunk, bury=True)


def _rebuild(chunk: Chunk) -> None:
    """Apply the partials of a chunk again; the unreadable ones are dead letters already."""
    _apply(chunk, bury=False)


def _apply(chunk: Chunk, bury: bool) -> None:
    table = chunk.view(by_product)
    grouped: dict[bytes, list[PartialTotals]] = {}
    for record in chunk.records:
        partial = decode_record(chunk, record, decode_partial, "by_product", bury)
        if partial is not None:
            grouped.setdefault(partial.product_name.encode(), []).append(partial)
    table.update(
        {product: merge_partials(value, grouped[product]) for product, value in table.get_many(grouped).items()}
    )


by_product = app.Table(
    "by_product",
    source_topic=product_partials,
    partitions=settings.partitions,
    rebuild=_rebuild,
    help="Partial totals of each product by partition of orders; msgpack, see domain.totals.merge_partials.",
)


class ByProductReader:
    """Reads the totals of products.

    Raises ClosedPartition for a partition that is not open here.
    """

    def __init__(self, table: TableReader) -> None:
        self._table = table

    def totals(self, product_name: str, partition: int) -> Totals | None:
        """Return the number of purchases and the revenue of a product; None for no purchases."""
        value = self._table.read(partition, product_name.encode())
        return None if value is None else sum_partials(value)
