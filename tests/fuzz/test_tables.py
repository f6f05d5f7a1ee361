"""What anybody who may write to a changelog or a topic between two tables can send."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import co_purchases, product_history, purchases, totals
from domain.codec import encode
from domain.errors import UnknownFormat
from domain.purchases import RecentPurchases
from domain.totals import Totals
from tests.kit.fuzz import NESTING, fuzz, inputs, samples


class Decoder(NamedTuple):
    """A decoder of values, and the encoder of its result."""

    decode: Callable[[bytes], object]
    encode: Callable[[object], bytes] = encode


def with_format(number: int) -> Callable[[object], bytes]:
    """An encoder of a result that lacks the format number."""
    return lambda result: encode((number, *result) if isinstance(result, tuple) else (number, result))


#: Folder of the corpus -> decoder.
DECODERS = {
    "by_user": Decoder(purchases.decode_recent, lambda recent: encode_recent(recent)),
    "by_user_overflow": Decoder(purchases.decode_overflow, with_format(purchases.OVERFLOW_FORMAT)),
    "product_partials": Decoder(totals.decode_totals, totals.encode_totals),
    "product_partials_topic": Decoder(totals.decode_partial),
    "by_product": Decoder(totals.sum_partials, lambda total: totals.merge_partials(None, [as_partial(total)])),
    "purchase_changes": Decoder(co_purchases.decode_changes, with_format(co_purchases.FORMAT)),
    "baskets": Decoder(co_purchases.decode_basket),
    "baskets_overflow": Decoder(co_purchases.decode_overflow_line, with_format(co_purchases.FORMAT)),
    "co_purchases": Decoder(co_purchases.decode_delta),
    "similar": Decoder(co_purchases.decode_sales, co_purchases.encode_sales),
    "similar_pairs": Decoder(co_purchases.decode_pair_count),
    "product_sales": Decoder(co_purchases.decode_extract, with_format(co_purchases.FORMAT)),
    "product_history": Decoder(product_history.decode_history),
}


def encode_recent(recent: RecentPurchases) -> bytes:
    """The former format has three fields."""
    is_former = recent.format < purchases.RECENT_FORMAT
    return encode((recent.format, recent.floor, recent.purchases)) if is_former else encode(recent)


def as_partial(total: Totals) -> totals.PartialTotals:
    return totals.decode_partial(totals.encode_partial("tea", 0, 1, total))


@pytest.mark.parametrize("name", DECODERS)
@fuzz
@given(st.data())
def test_a_value_is_read_or_of_an_unknown_format(name: str, data: st.DataObject):
    value = data.draw(inputs(name))
    decoder = DECODERS[name]
    try:
        result = decoder.decode(value)
    except UnknownFormat:
        return
    try:
        encoded = decoder.encode(result)
    except OverflowError:  # the sum of partial totals
        assert name == "by_product"
        return
    assert decoder.decode(encoded) == result
    # A number of one byte can become one of nine; defaults and floors are written.
    assert len(encoded) <= 9 * len(value) + 1_000


@pytest.mark.parametrize("name", DECODERS)
def test_every_sample_of_a_table_is_read(name: str):
    for value in samples(name):
        DECODERS[name].decode(value)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("start", [b"", b"\x93\x03\xc0", b"\x92\x01", b"\x96\x01", b"\x99"])
@pytest.mark.parametrize("level", [b"\x91", b"\x81\xa0", b"\x81\x00"])
def test_a_deep_value_is_of_an_unknown_format(name: str, start: bytes, level: bytes):
    with pytest.raises(UnknownFormat):
        DECODERS[name].decode(start + level * NESTING)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("length", [b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xdb\xff\xff\xff\xff"])
def test_a_length_that_the_value_does_not_have_is_refused(name: str, length: bytes):
    for start in (b"", b"\x92\x01", b"\x93\x01", b"\x93\x03\xc0"):
        with pytest.raises(UnknownFormat):
            DECODERS[name].decode(start + length)


@pytest.mark.parametrize("revenue", ["abc", "", "NaN", "Infinity", "1e999999", "-", "1.", "\u0663", "9" * 1_000, "1\n"])
def test_a_revenue_that_is_no_amount_is_of_an_unknown_format(revenue: str):
    values = {
        "product_partials": (1, 1, revenue),
        "product_partials_topic": (1, "tea", 0, 0, 1, revenue),
        "by_product": (1, {0: (1, 1, revenue)}),
    }
    for name, value in values.items():
        with pytest.raises(UnknownFormat):
            DECODERS[name].decode(encode(value))
