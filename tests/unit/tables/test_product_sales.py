"""The copy of product_sales in memory has the rows of each partition that count."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.co_purchases import ProductSales, decode_extract, encode_extract
from domain.errors import UnknownFormat
from tables.product_sales import SalesCopy

PARTITIONS = 3
NAMES = {partition: [f"{partition}-{name}" for name in ("a", "é", "\U0001f600")] for partition in range(PARTITIONS)}


def row(name: str, buyers: int | None) -> tuple[bytes, bytes | None]:
    return name.encode(), None if buyers is None else encode_extract(ProductSales(1, buyers, (0, "zoo"), {7: buyers}))


class Model:
    """The rows of a partition: those of former beginnings count until the rows since the last one are complete."""

    def __init__(self) -> None:
        self.former: dict[str, int] = {}
        self.newest: dict[str, int] = {}

    def begin(self) -> None:
        self.former, self.newest = {**self.former, **self.newest}, {}

    def apply(self, name: str, buyers: int | None) -> None:
        self.former.pop(name, None)
        self.newest.pop(name, None)
        if buyers is not None:
            self.newest[name] = buyers

    def complete(self) -> None:
        self.former = {}


STEPS = st.lists(
    st.tuples(
        st.integers(0, PARTITIONS - 1),
        st.one_of(
            st.just("begin"),
            st.just("complete"),
            st.lists(st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(0, 9))), max_size=4),
        ),
    ),
    max_size=40,
)


@given(STEPS)
def test_a_copy_has_the_rows_of_its_partitions_whenever_these_begin_anew(steps: list):
    copy, models = SalesCopy(PARTITIONS), [Model() for _ in range(PARTITIONS)]
    for partition, step in steps:
        if step == "begin":
            copy.begin(partition)
            models[partition].begin()
        elif step == "complete":
            copy.complete(partition)
            models[partition].complete()
        else:
            changes = [(NAMES[partition][number], buyers) for number, buyers in step]
            copy.apply(partition, [row(*change) for change in changes])
            for change in changes:
                models[partition].apply(*change)
        expected = {name: buyers for model in models for name, buyers in {**model.former, **model.newest}.items()}
        found = {name: sales.buyers for part in copy.parts() for name, sales in part}
        assert found == expected
        for names in NAMES.values():
            for name in names:
                sales = copy.get(name)
                assert (None if sales is None else sales.buyers) == expected.get(name)


def test_a_row_has_the_buyers_the_category_and_the_hours_of_the_product():
    copy = SalesCopy(1)
    sales = ProductSales(1, 5, (86_400_000_000, "phones"), {100: 1, 124: 2, 300: 4, 10_000: 8})
    copy.apply(0, [(b"Phone", encode_extract(sales)), (b"Case", encode_extract(ProductSales(1, 2)))])
    phone, case = copy.get("Phone"), copy.get("Case")
    assert phone is not None
    assert case is not None
    assert (phone.buyers, phone.category, phone.recent_buyers([0, 23, 24, 200], 124)) == (5, "phones", [2, 2, 3, 3])
    assert (case.buyers, case.category, case.recent_buyers([0, 23, 24, 200], 124)) == (2, None, [0, 0, 0, 0])
    assert copy.get("Phon") is None


@given(
    st.integers(-(2**40), 2**40),
    st.none() | st.text(),
    st.dictionaries(st.integers(0, 2**32), st.integers(-(2**31), 2**31), max_size=200),
    st.integers(-(2**60), 2**60),
)
def test_an_extract_contains_the_buyers_the_newest_category_and_the_hours(buyers, category, hours, day):
    sales = ProductSales(1, buyers, None if category is None else (day, category), hours)
    assert decode_extract(encode_extract(sales)) == (buyers, category, hours)


def test_an_extract_of_a_later_format_is_refused():
    fields = msgspec.msgpack.decode(encode_extract(ProductSales()))
    with pytest.raises(UnknownFormat):
        decode_extract(msgspec.msgpack.encode([2, *fields[1:]]))
    with pytest.raises(UnknownFormat):
        decode_extract(msgspec.msgpack.encode([99, "something else"]))
