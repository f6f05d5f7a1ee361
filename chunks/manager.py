"""Faust's table manager, with partition tasks and the engine's recovery."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from faust.tables.manager import TableManager as FaustTableManager
from faust.types import TP

from chunks.app import ChunkedApp
from chunks.lost import Loss
from chunks.partition_task import PartitionTask
from chunks.records import Headers
from chunks.recovery import Recovery
from chunks.standby import StandbyCheck
from chunks.store import LocalOffset, Store, in_store_thread
from chunks.table import Table
from chunks.transactions import transactional_id

if TYPE_CHECKING:
    from collections.abc import ValuesView

CACHE_BYTES = 256 * 2**20
BLOCK_CACHE_BYTES = 256 * 2**20


async def _cannot_recover(loss: Loss) -> bool:
    return False


class TableManager(FaustTableManager):
    """Replaces: recovery through the streams' queues, and a pause of a second at each start."""

    app: ChunkedApp
    _recovery: Recovery | None = None  # type: ignore[assignment]  # has all that Faust calls of its own Recovery

    if TYPE_CHECKING:
        _changelogs: dict[str, Table]  # type: ignore[assignment]  # all tables of the app are of this class

        def __getitem__(self, name: str) -> Table: ...

        def values(self) -> ValuesView[Table]: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Source partition -> its task, for the partitions that this worker may process now.
        self.partition_tasks: dict[TP, PartitionTask] = {}
        #: Maximum size of the value caches of all tasks together.
        self.cache_bytes = CACHE_BYTES
        #: Size of RocksDB's block cache, which all tables share.
        self.block_cache_bytes = BLOCK_CACHE_BYTES
        #: Topics whose agents may be slow: their records wait in Kafka and do not block other
        #: topics.
        self.background_topics: frozenset[str] = frozenset()
        #: Returns the headers of each position record, with which a transaction ends in a
        #: changelog.
        self.position_headers: Callable[[], Headers] = list
        #: Return the signature of this worker's address, and whether another worker has signed its own.
        #: A worker with another signature gets no partitions and is asked nothing.
        self.sign_address: Callable[[str], str] = lambda url: ""
        self.is_trusted_address: Callable[[str, str], bool] = lambda url, signature: True
        #: Called before each step; an app may end the process there.
        self.before_step: Callable[[], None] = lambda: None
        #: Decides whether a partition that this worker does not own can be read here.
        self.standby = StandbyCheck(self.app)
        #: Called before a lost partition of a table is rebuilt. It returns whether the app recovers
        #: what the rebuild cannot.
        self.on_loss: Callable[[Loss], Awaitable[bool]] = _cannot_recover

        #: Changelog -> partition -> its offset on disk when the worker last gave up its partitions.
        self.local_offsets: dict[str, dict[int, LocalOffset]] = {}
        #: Changelog -> partition -> its end offset when this worker began to restore it.
        self.changelog_ends: dict[str, dict[int, int]] = {}
        #: The consumer group; None: the app's id.
        self.group_id: str | None = None
        #: Source topic -> prefix of its transactional ids; by default the app's id.
        self.writer_prefixes: dict[str, str] = {}

    def transactional_id(self, source: TP) -> str:
        """Return the transactional id of the owner of a source partition."""
        return transactional_id(self.writer_prefixes.get(source.topic, self.app.conf.id), source)

    @property
    def by_name(self) -> Mapping[str, Table]:
        """The tables of this process by name."""
        tables: Mapping[str, Table] = self.data
        return tables

    def exclude(self, table: Table) -> None:
        """Remove a table that no agent of this process writes."""
        del self[table.name]
        del self._changelogs[table.changelog]

    @property
    def recovery(self) -> Recovery:  # type: ignore[override]  # has all that Faust calls of its own Recovery
        """The recovery service.

        Replaces: Faust's, which reads the changelogs through the streams' queues.
        """
        if self._recovery is None:
            self._recovery = Recovery(self.app, beacon=self.beacon, loop=self.loop)
        return self._recovery

    def table_of(self, changelog_topic: str) -> Table:
        """Return the table of a changelog topic."""
        return self._changelogs[changelog_topic]

    def store(self, changelog: TP) -> Store:
        """Return the open store of a changelog partition.

        Raises KeyError if it is not open here.
        """
        return self.table_of(changelog.topic).stores[changelog.partition]

    def on_disk_failure(self, exc: Exception) -> None:
        """End the worker, from any thread: a web view may be the first to meet the error."""
        asyncio.run_coroutine_threadsafe(self.app.consumer.crash(exc), self.app.loop)

    def record_local_offsets(self) -> None:
        """Record the offsets of the partitions on disk, by which the leader assigns partitions."""
        now = time.time()
        self.local_offsets = {
            table.changelog: {
                **self.local_offsets.get(table.changelog, {}),
                **{
                    number: LocalOffset(store.offset, now)
                    for number, store in table.stores.items()
                    if store.is_verified
                },
            }
            for table in self.values()
        }

    async def on_start(self) -> None:
        """Read the local offsets, register the changelogs and start recovery.

        Replaces: a pause of a second.
        """
        self.local_offsets = {
            table.changelog: await in_store_thread(table.read_local_offsets) for table in self.values()
        }
        await self._update_channels()
        await self.recovery.start()

    async def on_stop(self) -> None:
        """Stop the producers and close the tables.

        1. Stop the reads of standbys. 2. Let the transactions end and stop the producers. 3. Close
        the stores, which no transaction writes to any more.

        Replaces: stores that the garbage collector closes.
        """
        # 1.
        await self.standby.stop()
        # 2.
        await self.recovery.release_partitions()
        await super().on_stop()
        # 3.
        for table in self.values():
            for partition in list(table.stores):
                await table.close(partition)

    async def settle(self) -> bool:
        """Wait until everything folded is durable; False if a transaction or agent failed."""
        settling = asyncio.create_task(self._settle_tasks())
        while not settling.done():
            # An agent that has failed never ends its step.
            if self.app.crashed:
                settling.cancel()
            await asyncio.wait([settling], timeout=0.1)
        return not settling.cancelled() and settling.result()

    async def _settle_tasks(self) -> bool:
        return all(await asyncio.gather(*(task.settle() for task in list(self.partition_tasks.values()))))
