"""Reads of a table from outside the agents: the interface, and its implementation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from chunks.errors import ClosedPartition
from chunks.snapshot import StoreSnapshot
from chunks.store import Store
from chunks.watch import Watch


class TableReader(Protocol):
    """Reads of the committed content of a table.

    Each raises ClosedPartition for a partition not open here.
    """

    @property
    def name(self) -> str:
        """The name of the table."""

    @property
    def source_topic(self) -> str:
        """The topic that the table is computed from."""

    def read(self, partition: int, key: bytes) -> bytes | None:
        """Return the value of a key; None when it is absent."""

    def read_many(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        """Return the values of many keys, in their order."""

    def scan(self, partition: int, prefix: bytes = b"", after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows whose key starts with `prefix` and comes after `after`, in key order."""

    def snapshot(self, partition: int) -> StoreSnapshot:
        """Return a consistent snapshot of a partition."""

    def watch(self, partition: int, key: bytes) -> AbstractContextManager[Watch]:
        """Watch the values under a key until the partition is closed."""

    def position(self, partition: int) -> int | None:
        """Return the first offset of the source topic that is not applied yet, or None."""


class StoreReader:
    """A TableReader over the open stores of a table: partition -> store.

    `source_topic` is the table's source topic.
    """

    def __init__(self, name: str, source_topic: str, stores: dict[int, Store]) -> None:
        self.name = name
        self.source_topic = source_topic
        self.stores = stores

    def read(self, partition: int, key: bytes) -> bytes | None:
        """Return the committed value of a key. Raises ClosedPartition."""
        return self._open_store(partition).get(key)

    def read_many(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        """Return the committed values of many keys, in their order. Raises ClosedPartition."""
        return self._open_store(partition).get_many(keys)

    def scan(self, partition: int, prefix: bytes = b"", after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield the committed rows whose key starts with `prefix` and follows `after`, in order.

        Raises ClosedPartition.
        """
        return self._open_store(partition).scan(prefix, after)

    def snapshot(self, partition: int) -> StoreSnapshot:
        """Return a snapshot of everything committed in a partition. Raises ClosedPartition."""
        return self._open_store(partition).snapshot()

    def watch(self, partition: int, key: bytes) -> AbstractContextManager[Watch]:
        """Watch the committed values under a key until the partition is closed.

        Raises ClosedPartition.
        """
        return self._open_store(partition).watches.watch(key)

    def position(self, partition: int) -> int | None:
        """Return the first offset of the source topic that is not committed, or None.

        Raises ClosedPartition.
        """
        return self._open_store(partition).position(self.source_topic)

    def _open_store(self, partition: int) -> Store:
        try:
            return self.stores[partition]
        except KeyError:
            raise ClosedPartition(f"partition {partition} of {self.name} is not open here") from None
