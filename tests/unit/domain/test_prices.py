"""The value of a price counts, however the shop's server spells it."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.prices import canonical_price, is_same_amount, is_valid_price

#: Values in units of 10^-10: all that a valid price can have.
values = st.integers(0, 10**28 - 1).map(lambda units: Fraction(units, 10**10))
numbers = st.builds(
    lambda sign, zeros, integer, fraction, exponent: f"{sign}{'0' * zeros}{integer}{fraction}{exponent}",
    st.sampled_from(["", "", "-"]),
    st.integers(0, 40),
    st.integers(0, 10**20),
    st.one_of(st.just(""), st.text("0123456789", min_size=1, max_size=40).map(lambda digits: f".{digits}")),
    st.one_of(st.just(""), st.integers(-40, 40).map(lambda power: f"e{power}"), st.just("E+05")),
)


def decimals(value: Fraction, places: int) -> str:
    """A value with so many decimals."""
    integer, rest = divmod(value.numerator * 10**places // value.denominator, 10**places)
    return f"{integer}.{rest:0{places}}"


@given(values, st.integers(10, 60), st.integers(0, 60))
def test_a_price_has_one_form_whatever_zeros_surround_it(value: Fraction, places: int, zeros: int):
    canonical = canonical_price("0" * zeros + decimals(value, places))
    assert canonical is not None
    assert is_valid_price(canonical)
    assert Fraction(canonical) == value


@given(values, st.integers(-60, 60))
def test_an_exponent_changes_the_spelling_only(value: Fraction, exponent: int):
    shifted = value / Fraction(10) ** exponent
    canonical = canonical_price(f"{decimals(shifted, 90)}e{exponent}")
    assert canonical is not None
    assert Fraction(canonical) == value


@given(numbers)
def test_a_number_becomes_a_price_of_its_value_or_none(number: str):
    value = Fraction(number)
    is_allowed = 0 <= value < 10**18 and (value * 10**10).denominator == 1
    canonical = canonical_price(number)
    assert (canonical is not None) == is_allowed
    if canonical is not None:
        assert is_valid_price(canonical)
        assert Fraction(canonical) == value
        assert canonical_price(canonical) == canonical


@pytest.mark.parametrize("price", ["0", "0.00", "19.90", "1.5", "1.5000", "007.10", "9" * 18 + "." + "9" * 10])
def test_a_valid_price_is_kept_digit_by_digit(price: str):
    assert canonical_price(price) == price


@pytest.mark.parametrize(
    ("number", "price"),
    [
        ("19.900000000000000000000000000000", "19.90"),
        ("0.0000001000000000", "0.0000001"),
        ("0000000000000000000000000019.90", "19.90"),
        ("1e17", "100000000000000000.00"),
        ("1.2345678901234568e17", "123456789012345680.00"),
        ("1e-10", "0.0000000001"),
        ("-0", "0.00"),
        ("-0.00", "0.00"),
        ("0e9999", "0.00"),
    ],
)
def test_what_the_servers_print_becomes_a_price(number: str, price: str):
    assert canonical_price(number) == price


@pytest.mark.parametrize(
    "text",
    [
        "", " 1", "1 ", "1\n", "+1", ".5", "5.", "1,5", "1_000", "0x1", "NaN", "Infinity", "1e", "e5", "--1", "-1",
        "-1e-300", "1e18", "1e20", "1e9999", "1e-11", "0.00000000001", "1e99999999999", "١٩", "1" * 100_000,
        "0." + "0" * 100_000,
    ],
)  # fmt: skip
def test_what_has_no_valid_value_is_no_price(text: str):
    assert canonical_price(text) is None


@given(values)
def test_equal_amounts_are_equal_in_any_spelling(value: Fraction):
    assert is_same_amount(decimals(value, 10), decimals(value, 10).rstrip("0") + "0")
    assert not is_same_amount(decimals(value, 10), decimals(value + Fraction(1, 10**10), 10))
