"""product_sales: product name -> its buyers, its category and the hours of their last purchases.

The rows are extracts of the rows `p` of the table `similar`. Every process reads the changelog of
all partitions into memory, because a list of products needs the sales of very many products.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from sys import intern

import msgspec

from app.core import app, co_purchases, settings
from chunks import Chunk, Rows
from domain import co_purchases as codec
from domain.co_purchases import ProductSales, count_recent_buyers
from tables.similar import SALES_PREFIX, similar

#: The number of parts of the copy in memory. With a million products a part has about 250: a scan
#: lets other requests run between two parts.
PARTS = 4_096


def _rebuild(chunk: Chunk) -> None:
    """Write the extracts of a chunk of rows of the table similar."""
    table = chunk.view(product_sales)
    for _index, key, value in chunk.records:
        assert key is not None, "a row of a table has a key"
        table[key.removeprefix(SALES_PREFIX)] = codec.encode_extract(codec.decode_sales(value))


product_sales = app.Table(
    "product_sales",
    source_topic=co_purchases,
    partitions=settings.partitions,
    rebuild=_rebuild,
    derived_from=similar,
    derived_prefix=SALES_PREFIX,
    help="Buyers, category and hours of each product; msgpack, see domain.co_purchases.encode_extract.",
)


def write_later(chunk: Chunk, product: bytes, sales: ProductSales) -> None:
    """Write the extract of a product at the end of the transaction, once for all of its changes."""
    chunk.accumulate(dict[bytes, ProductSales], _write_extracts)[product] = sales


def _write_extracts(chunk: Chunk, sales: dict[bytes, ProductSales]) -> None:
    chunk.view(product_sales).update({product: codec.encode_extract(value) for product, value in sales.items()})


class _Life:
    """The time between two beginnings of a partition of the table."""

    __slots__ = ("is_over",)

    def __init__(self) -> None:
        self.is_over = False


class ProductRow(msgspec.Struct, frozen=True, gc=False):
    """The sales of a product: its buyers by the hour of their last purchase, and in total."""

    buyers: int
    category: str | None
    hours: dict[int, int]
    life: _Life

    def recent_buyers(self, windows: Sequence[int], now_hour: int) -> list[int]:
        """Return for each window the number of users whose last purchase of the product is in it.

        A window is a number of hours before `now_hour`.
        """
        return count_recent_buyers(self.hours, windows, now_hour)


class SalesCopy:
    """The sales of all products in memory: implements chunks.RowCopy.

    A row counts until its partition has been written anew completely.
    """

    def __init__(self, partitions: int) -> None:
        self._parts: list[dict[str, ProductRow]] = [{} for _ in range(PARTS)]
        self._lives = [_Life() for _ in range(partitions)]
        self._former_lives: list[list[_Life]] = [[] for _ in range(partitions)]

    def get(self, product_name: str) -> ProductRow | None:
        """Return the sales of a product; None if it was never bought."""
        row = self._parts[hash(product_name) % PARTS].get(product_name)
        return None if row is None or row.life.is_over else row

    def count_buyers(self, product_names: Iterable[str]) -> list[int]:
        """Return the number of buyers of each product; 0 if it was never bought."""
        parts = self._parts
        rows = [parts[hash(name) % PARTS].get(name) for name in product_names]
        return [0 if row is None or row.life.is_over else row.buyers for row in rows]

    def parts(self) -> Iterator[list[tuple[str, ProductRow]]]:
        """Yield the names and sales of all products in small lists, in no particular order."""
        for part in self._parts:
            yield [(name, row) for name, row in part.items() if not row.life.is_over]

    def begin(self, partition: int) -> None:
        """Let the rows of a partition begin anew; the former rows count until `complete`."""
        self._former_lives[partition].append(self._lives[partition])
        self._lives[partition] = _Life()

    def apply(self, partition: int, rows: Rows) -> None:
        """Store rows of a partition."""
        parts, life = self._parts, self._lives[partition]
        for key, value in rows:
            name = key.decode()
            part = parts[hash(name) % PARTS]
            if value is None:
                part.pop(name, None)
            else:
                buyers, category, hours = codec.decode_extract(value)
                part[name] = ProductRow(buyers, category and intern(category), hours or _NO_HOURS, life)

    def complete(self, partition: int) -> None:
        """Let the former rows of a partition no longer count."""
        for life in self._former_lives[partition]:
            life.is_over = True
        self._former_lives[partition].clear()


#: Shared by the rows of all products that nobody bought for a week.
_NO_HOURS: dict[int, int] = {}
