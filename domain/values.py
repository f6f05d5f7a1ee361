"""Conversion of times and amounts of money between their types and their texts."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Context, Decimal

#: In microseconds.
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Prices have up to 28 digits, Python's default precision; a sum of 10^32 of them stays exact in 60.
EXACT = Context(prec=60)


def microseconds(moment: datetime) -> int:
    """A moment as whole microseconds since 1970 UTC, exactly."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def utc_datetime(microseconds: int) -> datetime:
    """Whole microseconds since 1970 UTC as a moment, exactly; as JSON it reads as `rfc3339` writes it."""
    return _EPOCH + timedelta(0, 0, microseconds)


def money(amount: Decimal) -> str:
    """An amount as text with two decimals, or as many more as it needs."""
    whole, _, decimals = format(amount, "f").partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def rfc3339(microseconds: int) -> str:
    """Microseconds since 1970 UTC as RFC 3339 text with Z, without a fraction where it is zero."""
    return f"{utc_datetime(microseconds).isoformat()[:-6]}Z"
