"""A table as an agent step sees it: committed values, overlaid with uncommitted ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final

from chunks.keys import RESERVED_PREFIX
from chunks.store import Store

#: Number of discarded values freed at each update. It exceeds the number of added values, so that
#: discarded values do not pile up.
FREED_PER_UPDATE = 2_000

Values = dict[bytes, bytes | None]


class ValueCache:
    """Newest values of recently written keys of some tables, within one limit of bytes.

    The cache has two generations: values are written to the young one, which becomes the old one
    when it is full. Reads need no bookkeeping.
    """

    ENTRY_BYTES = 180  # memory of a key, an empty value and their dict entry

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes // 2
        self._young: defaultdict[str, Values] = defaultdict(dict)
        self._old: defaultdict[str, Values] = defaultdict(dict)
        self._young_bytes = 0
        self._discarded: list[Values] = []

    def generations(self, table: str) -> tuple[Values, Values]:
        """Return the young and the old generation of a table; values of the young one are newer."""
        return self._young[table], self._old[table]

    def update(self, table: str, values: Values) -> None:
        """Store these values as the newest; None marks an absent key."""
        self._young[table].update(values)
        self._young_bytes += sum(map(len, filter(None, values.values()))) + self.ENTRY_BYTES * len(values)
        self._free_discarded(FREED_PER_UPDATE)
        if self._young_bytes > self._limit:
            self._discarded += self._old.values()
            self._old, self._young, self._young_bytes = self._young, defaultdict(dict), 0

    def _free_discarded(self, count: int) -> None:
        # To free a whole generation at once takes longer than a request may wait.
        while self._discarded and count:
            if self._discarded[-1]:
                self._discarded[-1].popitem()
                count -= 1
            else:
                self._discarded.pop()


class TableState:
    """State that all views of one table partition share: store, cache and uncommitted values."""

    def __init__(self, name: str, store: Store, cache: ValueCache) -> None:
        self.name = name
        self.store = store
        self.cache = cache
        #: Newest first: the changes of the pending transaction, and those of the transaction in
        #: flight.
        self.uncommitted: list[Values] = []


class _Absent(Enum):
    """Result of a lookup of an absent key in a layer; None is the value of a deleted key."""

    ABSENT = 0


_ABSENT: Final = _Absent.ABSENT


class TableView:
    """A mapping of keys to values (bytes); others see assignments after the commit."""

    __slots__ = ("_state", "changes", "name")

    def __init__(self, state: TableState) -> None:
        self.name = state.name
        self.changes: Values = {}
        self._state = state

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when it is absent."""
        return self.get_many((key,))[key]

    def get_many(self, keys: Iterable[bytes]) -> Values:
        """Return the values of many keys, with one disk read for all that are not in memory."""
        values: Values = {}
        missing = []
        changes, (young, old) = self.changes, self._state.cache.generations(self.name)
        for key in keys:
            value = young.get(key, _ABSENT) if key not in changes else changes[key]
            if value is _ABSENT:
                value = old.get(key, _ABSENT)
                if value is _ABSENT:
                    value = self._read_uncommitted(key)
                    if value is _ABSENT:
                        missing.append(key)
                        continue
            values[key] = value
        if missing:
            values.update(zip(missing, self._state.store.get_many(missing), strict=True))
        return values

    def update(self, values: Values) -> None:
        """Assign many values."""
        self.changes.update(values)

    def __setitem__(self, key: bytes, value: bytes | None) -> None:
        self.changes[key] = value

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield all keys that start with `prefix` and their values, in no particular order."""
        newer = {
            key: value
            for layer in (*reversed(self._state.uncommitted), self.changes)
            for key, value in layer.items()
            if key.startswith(prefix) and not key.startswith(RESERVED_PREFIX)
        }
        yield from ((key, value) for key, value in newer.items() if value is not None)
        yield from ((key, value) for key, value in self._state.store.scan(prefix) if key not in newer)

    def _read_uncommitted(self, key: bytes) -> bytes | _Absent | None:
        for layer in self._state.uncommitted:
            value = layer.get(key, _ABSENT)
            if value is not _ABSENT:
                return value
        return _ABSENT
