"""SQL that MariaDB and MySQL both understand."""

from __future__ import annotations


def numbers(count: int) -> str:
    """A subquery whose column `n` contains each number from 1 to `count`, without recursion and sequences."""
    digits = range(len(str(count)))
    value = " + ".join(["1", *(f"{10**place} * d{place}.d" for place in digits)])
    digit = " UNION ALL ".join(["SELECT 0 AS d", *(f"SELECT {digit}" for digit in range(1, 10))])
    tables = ", ".join(f"({digit}) AS d{place}" for place in digits)
    return f"(SELECT {value} AS n FROM {tables} HAVING n <= {count} ORDER BY n)"
