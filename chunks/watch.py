"""Waiting for changes of committed values without polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from chunks.errors import ClosedPartition


class Watch:
    """The subscription of one waiter; a change before `wait` wakes it at once."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._has_ended = False

    async def wait(self, seconds: float) -> bool:
        """Return whether a value has changed since the last call, or changes within `seconds`.

        Raises ClosedPartition once this worker has given up the partition.
        """
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        if self._has_ended:
            raise ClosedPartition("this worker no longer serves the partition")
        self._changed.clear()
        return True

    def notify(self) -> None:
        """Wake the waiter: a value has changed."""
        self._changed.set()

    def end(self) -> None:
        """Wake the waiter for the last time: the partition is given up."""
        self._has_ended = True
        self._changed.set()


class KeyWatches:
    """All watches of one partition.

    `watch_key` maps a key to the key under which its changes are watched.
    """

    def __init__(self, watch_key: Callable[[bytes], bytes] | None = None) -> None:
        self._watch_key = watch_key or bytes
        self._watches: dict[bytes, set[Watch]] = {}

    @contextmanager
    def watch(self, key: bytes) -> Iterator[Watch]:
        """Watch a key.

        A value read between this call and a wait includes all changes that were notified before.
        """
        watch = Watch()
        self._watches.setdefault(key, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches.get(key, set())
            watches.discard(watch)
            if not watches:
                self._watches.pop(key, None)

    def notify(self, keys: Iterable[bytes]) -> None:
        """Wake the watches of these keys: their new values can be read."""
        if self._watches:
            for key in self._watches.keys() & set(map(self._watch_key, keys)):
                for watch in self._watches[key]:
                    watch.notify()

    def end(self) -> None:
        """End all watches: the partition is given up."""
        for watches in self._watches.values():
            for watch in watches:
                watch.end()
