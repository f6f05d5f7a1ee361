"""Conversion of times and amounts of money to and from their stored and printed forms.

A time is stored as whole microseconds since 1970 UTC, an amount as a decimal string.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from decimal import Context, Decimal

#: One hour and one day in microseconds.
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: The context for exact sums. A price has up to 28 digits; a sum of 10^32 prices fits into 60.
EXACT = Context(prec=60)

_FRACTION = re.compile(r"\.([0-9]+)")


def microseconds(time: datetime) -> int:
    """Convert a time with a time zone to whole microseconds since 1970 UTC, exactly."""
    since = time - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def utc_datetime(microseconds: int) -> datetime:
    """Convert whole microseconds since 1970 to a time in UTC; msgspec encodes it like `rfc3339`."""
    return _EPOCH + timedelta(0, 0, microseconds)


def rfc3339(microseconds: int) -> str:
    """Format whole microseconds since 1970 as RFC 3339 text with Z, without a fraction of zero."""
    return f"{utc_datetime(microseconds).isoformat()[:-6]}Z"


def parse_rfc3339(text: str) -> datetime:
    """Parse RFC 3339 text with Z or an offset; the result has no time zone if the text has none.

    Digits after the microseconds are ignored. Raises ValueError.
    """
    # Python 3.10 accepts only fractions with three or six digits.
    text = _FRACTION.sub(lambda fraction: f".{fraction[1][:6]:0<6}", text)
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def money(amount: Decimal) -> str:
    """Format an amount with at least two decimals, without further trailing zeros."""
    integer, _, decimals = format(amount, "f").partition(".")
    return f"{integer}.{decimals.rstrip('0').ljust(2, '0')}"
