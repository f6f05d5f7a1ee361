"""A table that is fed by one source topic and changed chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import faust
from faust.types import TP, AppT, TopicT

from chunks.chunk import Chunk
from chunks.partition_task import Ledger
from chunks.reader import StoreReader
from chunks.store import Held, Store, off_loop
from chunks.watch import Watches


class Table(StoreReader, faust.Table):
    """Replaces: a store that is written before its changelog, and reads that search all partitions.

    `fed_by` is the topic whose agent writes the table; both have the same partitions. Only views of chunks can write.
    `watched_as` maps a key to the one under which its changes are told, by default itself. `rebuild` makes a partition
    anew whose changelog was lost: it folds a chunk of the topic into this table alone and sends nothing, or a chunk of
    the pairs of the table `rebuilt_from`, which has the same topic.
    """

    def __init__(
        self, app: AppT, *, fed_by: TopicT, watched_as: Callable[[bytes], bytes] | None = None,
        rebuild: Callable[[Chunk], None] | None = None, rebuilt_from: Table | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        faust.Table.__init__(self, app, key_type=bytes, value_type=bytes, **kwargs)
        self.fed_by = fed_by.get_topic_name()
        self.watched_as = watched_as
        self.rebuild = rebuild
        self.rebuilt_from = rebuilt_from
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
    def _ledgers(self) -> dict[TP, Ledger]:
        return self.app.tables.ledgers

    def path(self, partition: int) -> Path:
        """Where a partition is kept."""
        return Path(self.app.conf.tabledir) / f"{self.name}-{partition}.db"

    def on_disk(self) -> dict[int, Held]:
        """Partition -> what is there of it, of all that earlier starts have left; to be asked while none is open."""
        found = {}
        for path in Path(self.app.conf.tabledir).glob(f"{self.name}-*.db"):
            number = path.stem.removeprefix(f"{self.name}-")
            if number.isdecimal():  # else it is of a table whose name begins like this one's
                # What cannot be opened is met again, and said, where it is needed.
                with suppress(Exception):
                    store = Store(path).open()
                    found[int(number)] = Held(store.offset, store.written_at)
                    store.close()
        return found

    def open(self, partition: int) -> Store:
        """Open a partition, or return it when it is open."""
        if partition not in self.stores:
            tables, watches = self.app.tables, Watches(self.watched_as)
            store = Store(self.path(partition), tables.block_cache_bytes, watches, tables.on_disk_failure)
            self.stores[partition] = store.open()
        return self.stores[partition]

    async def close(self, partition: int) -> None:
        """Close a partition."""
        # First: requests are answered meanwhile.
        store = self.stores.pop(partition, None)
        if store is not None:
            await off_loop(store.close)

    def position(self, partition: int) -> int | None:
        """The next offset of the source topic whose effect is not committed yet; None when nothing is.

        Raises ClosedPartition.
        """
        written = super().position(partition)
        # Offsets without records, such as the markers of transactions, are not written down.
        ledger = self._ledgers.get((self.fed_by, partition))
        return max(written or 0, ledger.durable) if ledger is not None and ledger.durable else written
