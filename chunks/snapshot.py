"""Ordered iteration over a RocksDB, and consistent snapshots of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import rocksdict

from chunks.keys import RESERVED_PREFIX


class StoreSnapshot:
    """A consistent snapshot of a store for several reads, one after the other.

    It is one RocksDB iterator, because the iterators of a rocksdict.Snapshot show the rows of the
    time when they are created. So a scan ends when the next read begins.
    """

    def __init__(self, db: rocksdict.Rdict, to_error: Callable[[Exception], Exception]) -> None:
        self._iterator = db.iter()
        self._to_error = to_error

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when it is absent. Raises DiskFailed."""
        row = next(iterate_rows(self._iterator, key, key + b"\x00", self._to_error), None)
        return None if row is None else row[1]

    def scan(self, prefix: bytes = b"", after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows whose key starts with `prefix` and comes after `after`, in key order.

        Raises DiskFailed.
        """
        return iterate_rows(self._iterator, *scan_bounds(prefix, after), self._to_error)


def scan_bounds(prefix: bytes, after: bytes | None) -> tuple[bytes, bytes]:
    """Return the bounds of the keys that start with `prefix` and come after `after`.

    The start is inclusive, the end exclusive.

    The engine's own keys are outside these bounds.
    """
    head = prefix.rstrip(b"\xff")
    end = head[:-1] + bytes([head[-1] + 1]) if head else RESERVED_PREFIX
    return max(prefix, b"" if after is None else after + b"\x00"), min(end, RESERVED_PREFIX)


def iterate_rows(
    iterator: rocksdict.RdictIter, start: bytes, end: bytes, to_error: Callable[[Exception], Exception]
) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values from `start` on and before `end`.

    rocksdict's own `items` ends without an error when RocksDB cannot read on, as if there were no
    more rows.
    """
    get_key, get_value, is_valid, advance = iterator.key, iterator.value, iterator.valid, iterator.next
    iterator.seek(start)
    while is_valid():
        key = get_key()
        if key >= end:
            return
        yield key, get_value()
        advance()
    try:
        iterator.status()
    except Exception as exc:
        raise to_error(exc) from None
