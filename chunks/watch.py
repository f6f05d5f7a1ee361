"""Waiting for a committed value to change, without asking again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from chunks.errors import ClosedPartition


class Watch:
    """What one waiter has: woken by each change, at once where it came before the wait."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._ended = False

    async def wait(self, seconds: float) -> bool:
        """Whether something has changed since the last call, or did so within `seconds`.

        Raises ClosedPartition once this worker has given up the partition.
        """
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        if self._ended:
            raise ClosedPartition("the partition is not served here any more")
        self._changed.clear()
        return True

    def notify(self) -> None:
        """Something has changed."""
        self._changed.set()

    def end(self) -> None:
        """Nothing will be told any more."""
        self._ended = True
        self._changed.set()


class KeyWatches:
    """All who wait for keys of one partition. `watched_as` maps a key to the one it is watched under."""

    def __init__(self, watch_key: Callable[[bytes], bytes] | None = None) -> None:
        self._watch_key = watch_key or bytes
        self._watches: dict[bytes, set[Watch]] = {}

    @contextmanager
    def watch(self, key: bytes) -> Iterator[Watch]:
        """Watch a key. What is read after this and before a wait is not older than what the wait tells of."""
        watch = Watch()
        self._watches.setdefault(key, set()).add(watch)
        try:
            yield watch
        finally:
            watching = self._watches.get(key, set())
            watching.discard(watch)
            if not watching:
                self._watches.pop(key, None)

    def notify(self, keys: Iterable[bytes]) -> None:
        """These keys have new values that can be read by now."""
        if self._watches:
            for key in self._watches.keys() & set(map(self._watch_key, keys)):
                for watch in self._watches[key]:
                    watch.notify()

    def end(self) -> None:
        """The partition is given up: nobody is told anything any more."""
        for watching in self._watches.values():
            for watch in watching:
                watch.end()
