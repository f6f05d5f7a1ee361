"""Totals of products: a partial sum per partition of `orders`, and the merge of these sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Annotated

import msgspec

from domain.codec import decode_checked, encode
from domain.prices import MAX_PRICE_CHARS
from domain.purchases import PriceChange
from domain.values import EXACT

PARTIAL_FORMAT = 1

#: A stored sum of prices. Other texts, such as NaN, would be valid for Decimal.
Revenue = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]+(?:\.[0-9]+)?\Z", max_length=200)]


class Totals(msgspec.Struct, frozen=True):
    """The number of purchases of a product, and the sum of their prices."""

    purchases: int = 0
    revenue: Decimal = Decimal(0)

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.purchases + other.purchases, EXACT.add(self.revenue, other.revenue))


class PartialTotals(msgspec.Struct, frozen=True, array_like=True):
    """The totals of a product over one partition of `orders`, up to the offset `position`."""

    format: int
    product_name: str
    partition: int
    position: int
    purchases: int
    revenue: Revenue


_decode_partial = msgspec.msgpack.Decoder(PartialTotals).decode
_decode_totals = msgspec.msgpack.Decoder(tuple[int, int, Revenue]).decode
# Partition -> position, purchases and revenue of its newest partial totals.
_decode_partials = msgspec.msgpack.Decoder(tuple[int, dict[int, tuple[int, int, Revenue]]]).decode


def _amount(price: str) -> Decimal:
    return _short_amount(price) if len(price) <= MAX_PRICE_CHARS else Decimal(price)


@lru_cache(maxsize=65_536)
def _short_amount(price: str) -> Decimal:
    return Decimal(price)


def sum_price_changes(price_changes: Mapping[PriceChange, int]) -> dict[str, Totals]:
    """Sum price changes, each with its number of occurrences; return product -> difference."""
    counts: dict[str, int] = {}
    revenues: dict[str, Decimal] = {}
    for (product_name, before, after), times in price_changes.items():
        count, revenue = counts.get(product_name, 0), revenues.get(product_name, Decimal(0))
        for price, sign in ((before, -times), (after, times)):
            if price is not None:
                count += sign
                revenue = EXACT.add(revenue, EXACT.multiply(_amount(price), sign))
        counts[product_name], revenues[product_name] = count, revenue
    return {product_name: Totals(count, revenues[product_name]) for product_name, count in counts.items()}


def encode_totals(totals: Totals) -> bytes:
    """Encode a value of the table product_partials."""
    return encode((PARTIAL_FORMAT, totals.purchases, format(totals.revenue, "f")))


def decode_totals(value: bytes | None) -> Totals:
    """Decode a value of the table product_partials; None: no purchases. Raises UnknownFormat."""
    if value is None:
        return Totals()
    _, purchases, revenue = decode_checked(_decode_totals, value, PARTIAL_FORMAT, "product_partials")
    return Totals(purchases, Decimal(revenue))


def encode_partial(product_name: str, partition: int, position: int, totals: Totals) -> bytes:
    """Encode a record of the topic product-partials."""
    revenue = format(totals.revenue, "f")
    return encode(PartialTotals(PARTIAL_FORMAT, product_name, partition, position, totals.purchases, revenue))


def decode_partial(value: bytes) -> PartialTotals:
    """Decode a record of the topic product-partials. Raises UnknownFormat."""
    return decode_checked(_decode_partial, value, PARTIAL_FORMAT, "product-partials")


def merge_partials(value: bytes | None, partials: Iterable[PartialTotals]) -> bytes:
    """Merge partial totals of a product into its value of by_product, and return the new value.

    The partial totals with the greatest position of each partition win. Raises UnknownFormat.
    """
    newest = {} if value is None else decode_checked(_decode_partials, value, PARTIAL_FORMAT, "by_product")[1]
    for partial in partials:
        if partial.partition not in newest or partial.position > newest[partial.partition][0]:
            newest[partial.partition] = (partial.position, partial.purchases, partial.revenue)
    return encode((PARTIAL_FORMAT, newest))


def encode_without_positions(value: bytes) -> bytes:
    """Encode a value of the table by_product again, without the positions. Raises UnknownFormat."""
    _, newest = decode_checked(_decode_partials, value, PARTIAL_FORMAT, "by_product")
    return encode([(partition, *totals) for partition, (_, *totals) in sorted(newest.items())])


def sum_partials(value: bytes) -> Totals:
    """Sum a value of the table by_product over all partitions. Raises UnknownFormat."""
    _, newest = decode_checked(_decode_partials, value, PARTIAL_FORMAT, "by_product")
    return sum((Totals(purchases, Decimal(revenue)) for _, purchases, revenue in newest.values()), Totals())
