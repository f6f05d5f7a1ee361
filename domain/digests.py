"""What makes two copies of a table equal: one digest of all its keys and values, in the order of the keys."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from domain.totals import encode_without_positions

DIGEST_BYTES = 16

#: Table -> what of a value is its content; where a table is not named, that is all of it. At which offsets the partial
#: totals of a product were told depends on how orders fell into transactions.
_CONTENT: dict[str, Callable[[bytes], bytes]] = {"by_product": encode_without_positions}


class PartitionDigest:
    """A digest of the keys and values of one partition of `table` (BLAKE2b); `keys` is how many there were."""

    def __init__(self, table: str) -> None:
        self.keys = 0
        self._content = _CONTENT.get(table)
        self._hash = blake2b(digest_size=DIGEST_BYTES)

    def add(self, key: bytes, value: bytes) -> None:
        """Add the next key in the order of their bytes."""
        if self._content is not None:
            value = self._content(value)
        self.keys += 1
        self._hash.update(b"%d %d " % (len(key), len(value)) + key + value)

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()
