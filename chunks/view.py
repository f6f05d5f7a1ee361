"""A table as an agent step sees it: what is committed, and over it what this worker is about to commit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from chunks.store import RESERVED_PREFIX, Store

#: Values that are freed at each update; more than are added, so that what is forgotten does not pile up.
FREED_PER_UPDATE = 2_000

Values = dict[bytes, bytes | None]


class ValueCache:
    """The newest values of the keys used last in some tables, within a limit of bytes for all of them.

    Two generations: what is written goes to the young one, and when that is full it becomes the old one. No
    bookkeeping for each read.
    """

    ENTRY_BYTES = 180  # what CPython needs for a key, a value and their place in a dict, besides the value's length

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes // 2
        self._young: defaultdict[str, Values] = defaultdict(dict)
        self._old: defaultdict[str, Values] = defaultdict(dict)
        self._young_bytes = 0
        self._discarded: list[Values] = []

    def generations(self, table: str) -> tuple[Values, Values]:
        """The young and the old one of a table: what is in the first is newer."""
        return self._young[table], self._old[table]

    def update(self, table: str, values: Values) -> None:
        """Remember these values as the newest; None means that there is none."""
        self._young[table].update(values)
        self._young_bytes += sum(map(len, filter(None, values.values()))) + self.ENTRY_BYTES * len(values)
        self._free_discarded(FREED_PER_UPDATE)
        if self._young_bytes > self._limit:
            self._discarded += self._old.values()
            self._old, self._young, self._young_bytes = self._young, defaultdict(dict), 0

    def _free_discarded(self, most: int) -> None:
        # To free a whole generation at once takes longer than a request may wait.
        while self._discarded and most:
            if self._discarded[-1]:
                self._discarded[-1].popitem()
                most -= 1
            else:
                self._discarded.pop()


class TableState:
    """All that the views of one table and partition share: the store, the cache, and what is not committed yet."""

    def __init__(self, name: str, store: Store, cache: ValueCache) -> None:
        self.name = name
        self.store = store
        self.cache = cache
        #: Newest first: what the next transaction will hold, and what the one under way holds.
        self.uncommitted: list[Values] = []


_ABSENT = object()


class TableView:
    """A mapping of keys to values (bytes); assignments become visible to others when the chunk is committed."""

    __slots__ = ("_state", "changes", "name")

    def __init__(self, state: TableState) -> None:
        self.name = state.name
        self.changes: Values = {}
        self._state = state

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`; None when there is none."""
        return self.get_many((key,))[key]

    def get_many(self, keys: Iterable[bytes]) -> Values:
        """The values of many keys; what is not in memory is read from disk in one go."""
        found: Values = {}
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
            found[key] = value
        if missing:
            found.update(zip(missing, self._state.store.get_many(missing), strict=True))
        return found

    def update(self, values: Values) -> None:
        """Assign many values."""
        self.changes.update(values)

    def __setitem__(self, key: bytes, value: bytes | None) -> None:
        self.changes[key] = value

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All keys that start with `prefix` and their values, in no particular order."""
        newer = {
            key: value
            for layer in (*reversed(self._state.uncommitted), self.changes)
            for key, value in layer.items()
            if key.startswith(prefix) and not key.startswith(RESERVED_PREFIX)
        }
        yield from ((key, value) for key, value in newer.items() if value is not None)
        yield from ((key, value) for key, value in self._state.store.scan(prefix) if key not in newer)

    def _read_uncommitted(self, key: bytes) -> bytes | object | None:
        for layer in self._state.uncommitted:
            value = layer.get(key, _ABSENT)
            if value is not _ABSENT:
                return value
        return _ABSENT
