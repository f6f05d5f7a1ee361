"""Totals of products: sums of what events changed, one partial sum per partition of `orders`, and their merge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache

import msgspec

from domain.codec import decode_checked, encode
from domain.purchases import PriceChange
from domain.values import EXACT

PARTIAL_FORMAT = 1


class Totals(msgspec.Struct, frozen=True):
    """How often a product was bought, and for how much in all."""

    purchases: int = 0
    revenue: Decimal = Decimal(0)

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.purchases + other.purchases, EXACT.add(self.revenue, other.revenue))


class Partial(msgspec.Struct, frozen=True, array_like=True):
    """The totals of a product over one partition of `orders`, up to the offset `position`."""

    format: int
    product_name: str
    partition: int
    position: int
    purchases: int
    revenue: str


_decode_partial = msgspec.msgpack.Decoder(Partial).decode
_decode_totals = msgspec.msgpack.Decoder(tuple[int, int, str]).decode
_decode_partials = msgspec.msgpack.Decoder(tuple[int, dict[int, tuple[int, int, str]]]).decode


@lru_cache(maxsize=65_536)
def _amount(price: str) -> Decimal:
    return Decimal(price)


def sum_price_changes(price_changes: Mapping[PriceChange, int]) -> dict[str, Totals]:
    """Product -> what these differences, each with how often it was met, add to its totals."""
    sums: dict[str, list] = {}
    for (product_name, before, after), times in price_changes.items():
        sum_ = sums.setdefault(product_name, [0, Decimal(0)])
        for price, sign in ((before, -times), (after, times)):
            if price is not None:
                sum_[0] += sign
                sum_[1] = EXACT.add(sum_[1], EXACT.multiply(_amount(price), sign))
    return {product_name: Totals(*pair) for product_name, pair in sums.items()}


def encode_totals(totals: Totals) -> bytes:
    """The value of the table product_partials."""
    return encode((PARTIAL_FORMAT, totals.purchases, format(totals.revenue, "f")))


def decode_totals(value: bytes | None) -> Totals:
    """The same, read. Raises UnknownFormat."""
    if value is None:
        return Totals()
    _, purchases, revenue = decode_checked(_decode_totals, value, PARTIAL_FORMAT, "product_partials")
    return Totals(purchases, Decimal(revenue))


def encode_partial(product_name: str, partition: int, position: int, totals: Totals) -> bytes:
    """A record of the topic product-partials."""
    revenue = format(totals.revenue, "f")
    return encode(Partial(PARTIAL_FORMAT, product_name, partition, position, totals.purchases, revenue))


def decode_partial(value: bytes) -> Partial:
    """The same, read. Raises UnknownFormat."""
    return decode_checked(_decode_partial, value, PARTIAL_FORMAT, "product-partials")


def merge_partials(value: bytes | None, partials: Iterable[Partial]) -> bytes:
    """Add partials of one product to what the table by_product knows of it: the newest per partition counts."""
    known = {} if value is None else decode_checked(_decode_partials, value, PARTIAL_FORMAT, "by_product")[1]
    for one in partials:
        if one.partition not in known or one.position > known[one.partition][0]:
            known[one.partition] = (one.position, one.purchases, one.revenue)
    return encode((PARTIAL_FORMAT, known))


def encode_without_positions(value: bytes) -> bytes:
    """A value of the table by_product without the offsets up to which its partials go. Raises UnknownFormat."""
    _, known = decode_checked(_decode_partials, value, PARTIAL_FORMAT, "by_product")
    return encode([(partition, *totals) for partition, (_, *totals) in sorted(known.items())])


def sum_partials(value: bytes) -> Totals:
    """The sum over all partitions. Raises UnknownFormat."""
    _, known = decode_checked(_decode_partials, value, PARTIAL_FORMAT, "by_product")
    return sum((Totals(purchases, Decimal(revenue)) for _, purchases, revenue in known.values()), Totals())
