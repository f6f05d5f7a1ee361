"""A table that is fed by one source topic and changed chunk by chunk."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import faust
from faust.types import TP, AppT, TopicT

from chunks.chunk import Chunk
from chunks.partition_task import PartitionTask
from chunks.reader import StoreReader
from chunks.store import LocalOffset, Store, in_store_thread
from chunks.watch import KeyWatches


class Table(StoreReader, faust.Table):
    """Replaces: a store that is written before its changelog, and reads that search all partitions.

    `fed_by` is the topic whose agent writes the table; both have the same partitions. Only views of chunks can write.
    `watched_as` maps a key to the one under which its changes are told, by default itself. `rebuild` makes a partition
    anew whose changelog was lost: it folds a chunk of the topic into this table alone and sends nothing, or a chunk of
    the pairs of the table `rebuilt_from`, which has the same topic.
    """

    def __init__(
        self, app: AppT, *, source_topic: TopicT | None = None, watch_key: Callable[[bytes], bytes] | None = None,
        rebuild: Callable[[Chunk], None] | None = None, derived_from: Table | None = None,
        fed_by: TopicT | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        if fed_by is not None:
            warnings.warn("Table(fed_by=...) is deprecated: write source_topic=...", DeprecationWarning, stacklevel=3)
            source_topic = source_topic or fed_by
        if source_topic is None:
            raise TypeError("Table() needs the argument source_topic: the topic whose agent writes the table")
        faust.Table.__init__(self, app, key_type=bytes, value_type=bytes, **kwargs)
        self.source_topic = source_topic.get_topic_name()
        self.watch_key = watch_key
        self.rebuild = rebuild
        self.derived_from = derived_from
        self.stores: dict[int, Store] = {}

    async def on_start(self) -> None:
        """Do nothing: partitions are opened when they are assigned."""

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Do nothing: recovery opens and closes partitions."""

    @cached_property
    def changelog(self) -> str:
        """The name of the changelog topic."""
        return self.changelog_topic.get_topic_name()

    @cached_property
    def _partition_tasks(self) -> dict[TP, PartitionTask]:
        return self.app.tables.partition_tasks

    def path(self, partition: int) -> Path:
        """Where a partition is kept."""
        return Path(self.app.conf.tabledir) / f"{self.name}-{partition}.db"

    def read_local_offsets(self) -> dict[int, LocalOffset]:
        """Partition -> what is there of it, of all that earlier starts have left; to be asked while none is open."""
        found = {}
        for path in Path(self.app.conf.tabledir).glob(f"{self.name}-*.db"):
            number = path.stem.removeprefix(f"{self.name}-")
            if number.isdecimal():  # else it is of a table whose name begins like this one's
                # What cannot be opened is met again, and said, where it is needed.
                with suppress(Exception):
                    store = Store(path).open()
                    found[int(number)] = LocalOffset(store.offset, store.written_at)
                    store.close()
        return found

    def open(self, partition: int) -> Store:
        """Open a partition, or return it when it is open."""
        if partition not in self.stores:
            tables, watches = self.app.tables, KeyWatches(self.watch_key)
            store = Store(self.path(partition), tables.block_cache_bytes, watches, tables.on_disk_failure)
            self.stores[partition] = store.open()
        return self.stores[partition]

    async def close(self, partition: int) -> None:
        """Close a partition."""
        # First: requests are answered meanwhile.
        store = self.stores.pop(partition, None)
        if store is not None:
            await in_store_thread(store.close)

    def position(self, partition: int) -> int | None:
        """The next offset of the source topic whose effect is not committed yet; None when nothing is.

        Raises ClosedPartition.
        """
        written = super().position(partition)
        # Offsets without records, such as the markers of transactions, are not written down.
        task = self._partition_tasks.get((self.source_topic, partition))
        return max(written or 0, task.durable) if task is not None and task.durable else written
