"""A table that is fed by one source topic and changed chunk by chunk."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import faust
from faust.types import TP, TopicT

from chunks.app import ChunkedApp
from chunks.chunk import Chunk
from chunks.partition_task import PartitionTask
from chunks.reader import StoreReader
from chunks.store import LocalOffset, Store, in_store_thread
from chunks.watch import KeyWatches


class Table(StoreReader, faust.Table[bytes, bytes]):
    """Replaces: a store that is written before its changelog, and reads that search all partitions.

    Only views of chunks can write to the table.
    """

    app: ChunkedApp

    def __init__(
        self, app: ChunkedApp, *, source_topic: TopicT | None = None,
        watch_key: Callable[[bytes], bytes] | None = None, rebuild: Callable[[Chunk], None] | None = None,
        derived_from: Table | None = None, derived_prefix: bytes | None = None, fed_by: TopicT | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Create a table with the partitions of `source_topic`, the topic whose agent writes it.

        `watch_key` maps a key to the key under which its changes are watched; by default they are
        equal. `rebuild` rebuilds a partition whose changelog was lost: it folds a chunk of the
        source topic into this table alone and sends nothing. With `derived_from`, a table of the
        same topic, it folds chunks of that table's rows instead. With `derived_prefix` it folds only
        the rows whose key starts with it, and each transaction that changes `derived_from` changes
        this table, too: if its position is lower, an earlier version of the app that does not know
        this table has changed `derived_from`, and this table is rebuilt. `fed_by` is the deprecated
        name of `source_topic`.
        """
        if fed_by is not None:
            # Level 4 is the caller of `app.Table`, which calls Faust's `App.Table`.
            warnings.warn("Table(fed_by=...) is deprecated: use source_topic=...", DeprecationWarning, stacklevel=4)
            source_topic = source_topic or fed_by
        if source_topic is None:
            raise TypeError("Table() requires source_topic, the topic whose agent writes the table")
        faust.Table.__init__(self, app, key_type=bytes, value_type=bytes, **kwargs)
        self.source_topic = source_topic.get_topic_name()
        self.watch_key = watch_key
        self.rebuild = rebuild
        self.derived_from = derived_from
        self.derived_prefix = derived_prefix
        self.stores: dict[int, Store] = {}

    async def on_start(self) -> None:
        """Do nothing. Replaces: opening all partitions; recovery opens those that are assigned."""

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Do nothing.

        Replaces: opening and closing partitions, which recovery does in its own order.
        """

    @cached_property
    def changelog(self) -> str:
        """The name of the changelog topic."""
        return self.changelog_topic.get_topic_name()

    @cached_property
    def _partition_tasks(self) -> dict[TP, PartitionTask]:
        return self.app.tables.partition_tasks

    def path(self, partition: int) -> Path:
        """Return the folder of a partition on disk."""
        return Path(self.app.conf.tabledir) / f"{self.name}-{partition}.db"

    def read_local_offsets(self) -> dict[int, LocalOffset]:
        """Return the offset of each partition that is on disk.

        No partition may be open during this call.
        """
        local_offsets = {}
        for path in Path(self.app.conf.tabledir).glob(f"{self.name}-*.db"):
            number = path.stem.removeprefix(f"{self.name}-")
            if number.isdecimal():  # else another table, whose name begins like this one's
                # Recovery opens the partition again if it is assigned, and reports the error then.
                with suppress(Exception):
                    store = Store(path).open()
                    local_offsets[int(number)] = LocalOffset(store.offset, store.written_at)
                    store.close()
        return local_offsets

    def open(self, partition: int) -> Store:
        """Return the store of a partition; it is opened if it is closed."""
        if partition not in self.stores:
            tables, watches = self.app.tables, KeyWatches(self.watch_key)
            store = Store(self.path(partition), tables.block_cache_bytes, watches, tables.on_disk_failure)
            self.stores[partition] = store.open()
        return self.stores[partition]

    async def close(self, partition: int) -> None:
        """Close a partition."""
        # The store is removed first: requests are served while it closes.
        store = self.stores.pop(partition, None)
        if store is not None:
            await in_store_thread(store.close)

    def position(self, partition: int) -> int | None:
        """Return the first offset of the source topic that is not committed, or None.

        Raises ClosedPartition.
        """
        position = super().position(partition)
        # The store does not contain positions past offsets without records, such as transaction
        # markers.
        task = self._partition_tasks.get((self.source_topic, partition))  # type: ignore[call-overload]  # faster than a TP
        return max(position or 0, task.durable) if task is not None and task.durable else position
