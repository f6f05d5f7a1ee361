"""similar: product name -> its buyers, its history, and its pairs with other products.

There are three kinds of keys: "p", product name; "h", product name; and "n", product name, the byte
ff, which UTF-8 never contains, the name of the other product. A pair has a key of its own, so that
a purchase writes its pairs and not the list of each product; the history has one, because only the
pages of products read it.
"""

from __future__ import annotations

import time
from itertools import islice

from app.core import app, co_purchases, settings
from chunks import Chunk, FetchedRecord, TableReader
from domain import co_purchases as codec
from domain import product_history
from domain.co_purchases import ProductSales, decode_pair_count
from domain.product_history import ProductHistory
from tables.unreadable import decode_record

#: First byte of the keys of the sales.
SALES_PREFIX = b"p"


def _rebuild(chunk: Chunk) -> None:
    for record in chunk.records:
        apply_record(chunk, record, bury=False)


similar = app.Table(
    "similar",
    source_topic=co_purchases,
    partitions=settings.partitions,
    rebuild=_rebuild,
    help="Buyers, history and neighbours of each product; msgpack, see domain.co_purchases.ProductSales.",
)


def current_hour() -> int:
    """Return the number of hours since 1970."""
    return int(time.time() // 3_600)


def apply_record(chunk: Chunk, record: FetchedRecord, bury: bool = True) -> ProductSales | None:
    """Apply a record of co-purchases, the delta of a product; return its new sales.

    An unreadable record becomes a dead letter, and the result is None.
    """
    table, product = chunk.view(similar), record[1] or b""
    delta = decode_record(chunk, record, codec.decode_delta, "similar", bury, needs_key=True)
    if delta is None:
        return None
    sales_key, history_key = _sales_key(product), _history_key(product)
    pairs = {_pair_key(product, name.encode()): count for name, count in delta.neighbours.items()}
    values = table.get_many([sales_key, history_key, *pairs])
    sales = codec.apply_delta(values.pop(sales_key), delta, current_hour())
    table[sales_key] = codec.encode_sales(sales)
    history = values.pop(history_key)
    if delta.purchases:
        table[history_key] = product_history.add_purchases(history, delta.purchases, current_hour())
    table.update({pair: codec.add_pair_count(value, pairs[pair]) for pair, value in values.items()})
    return sales


class SimilarReader:
    """Reads the sales of products and their pairs.

    Raises ClosedPartition for a partition that is not open here.
    """

    def __init__(self, table: TableReader) -> None:
        self._table = table

    def has_sales(self, product_name: str, partition: int) -> bool:
        """Return whether a product was ever bought."""
        return self._table.read(partition, _sales_key(product_name.encode())) is not None

    def history(self, product_name: str, partition: int) -> ProductHistory:
        """Return the newest purchases of a product and their counts over time."""
        return product_history.decode_history(self._table.read(partition, _history_key(product_name.encode())))

    def neighbours(self, product_name: str, partition: int, after: str | None, limit: int) -> list[tuple[str, int]]:
        """Return up to `limit` products with common buyers, and the number of these buyers.

        The products follow `after`.

        They are in the order of the UTF-8 bytes of their names.
        """
        prefix = _pair_key(product_name.encode(), b"")
        start = len(prefix)
        after_key = None if after is None else prefix + after.encode()
        pairs = islice(self._table.scan(partition, prefix, after_key), limit)
        return [(key[start:].decode(), decode_pair_count(value)) for key, value in pairs]


def _sales_key(product: bytes) -> bytes:
    return SALES_PREFIX + product


def _history_key(product: bytes) -> bytes:
    return b"h" + product


def _pair_key(product: bytes, other: bytes) -> bytes:
    return b"n" + product + b"\xff" + other
