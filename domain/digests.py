"""Digests of tables: two copies of a table are equal if their digests are equal."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from domain import totals

DIGEST_BYTES = 16

#: Table -> function that returns the part of a value that must be equal in all copies; other
#: tables: all of the value. The positions of partial totals depend on the borders of the
#: transactions.
_COMPARED_CONTENT: dict[str, Callable[[bytes], bytes]] = {"by_product": totals.encode_without_positions}


class PartitionDigest:
    """A digest (BLAKE2b) of the keys and values of one partition of a table.

    `keys` is the number of keys.
    """

    def __init__(self, table: str) -> None:
        self.keys = 0
        self._content = _COMPARED_CONTENT.get(table)
        self._hash = blake2b(digest_size=DIGEST_BYTES)

    def add(self, key: bytes, value: bytes) -> None:
        """Add a key and its value; the keys must be added in the order of their bytes."""
        if self._content is not None:
            value = self._content(value)
        self.keys += 1
        self._hash.update(b"%d %d " % (len(key), len(value)) + key + value)

    def hexdigest(self) -> str:
        """Return the digest of all keys and values that were added."""
        return self._hash.hexdigest()
