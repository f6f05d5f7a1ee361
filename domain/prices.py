"""Prices: decimal strings whose value counts, however the shop's server spells it."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

from domain.values import money

MAX_INTEGER_DIGITS, MAX_DECIMALS = 18, 10
#: The length of the longest valid price.
MAX_PRICE_CHARS = MAX_INTEGER_DIGITS + 1 + MAX_DECIMALS
PRICE_RULE = (
    f"price must be a decimal number >= 0 with at most {MAX_INTEGER_DIGITS} digits before the point "
    f"and {MAX_DECIMALS} after it"
)

_PRICE = re.compile(rf"[0-9]{{1,{MAX_INTEGER_DIGITS}}}(\.[0-9]{{1,{MAX_DECIMALS}}})?", re.ASCII)
# What MySQL and MariaDB print for their numeric types: DECIMAL(65,30), a DOUBLE as -1.5e-07, and a
# column with ZEROFILL, which has up to 255 digits.
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?", re.ASCII)
_MAX_NUMBER_CHARS = 330


def is_valid_price(price: str) -> bool:
    """Return True if a price is stored as it is written."""
    return len(price) <= MAX_PRICE_CHARS and _is_price(price)


# Its keys are short: a cache of texts of any length could take all memory.
@lru_cache(maxsize=65_536)
def _is_price(price: str) -> bool:
    return _PRICE.fullmatch(price) is not None


def canonical_price(text: str) -> str | None:
    """Return the valid price with the value of a number; None if no valid price has this value.

    A valid price is returned unchanged. Another spelling (trailing zeros, leading zeros, an
    exponent, a negative zero) becomes the shortest one with at least two decimals.
    """
    if is_valid_price(text):
        return text
    if len(text) > _MAX_NUMBER_CHARS or not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)  # exact, whatever the precision of the context is
    if not number:
        return money(Decimal(0))
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int), "the pattern accepts finite numbers only"
    significant = "".join(map(str, digits)).rstrip("0")
    exponent += len(digits) - len(significant)
    if sign or -exponent > MAX_DECIMALS or len(significant) + exponent > MAX_INTEGER_DIGITS:
        return None
    return money(Decimal(f"{significant}e{exponent}"))


def is_same_amount(first: str, second: str) -> bool:
    """Return True if two valid prices have the same value."""
    return first == second or Decimal(first) == Decimal(second)
