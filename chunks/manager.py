"""Faust's table manager, with tasks instead of acknowledgements and a recovery that knows them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from faust.tables.manager import TableManager as FaustTableManager
from faust.types import TP

from chunks.lost import Loss
from chunks.partition_task import PartitionTask
from chunks.records import Headers
from chunks.recovery import Recovery
from chunks.standby import StandbyCheck
from chunks.store import LocalOffset, Store, in_store_thread
from chunks.transactions import transactional_id

if TYPE_CHECKING:
    from chunks.table import Table

CACHE_BYTES = 256 * 2**20
BLOCK_CACHE_BYTES = 256 * 2**20


async def _brings_nothing_back(loss: Loss) -> bool:
    return False


class TableManager(FaustTableManager):
    """Replaces: recovery through the streams' own queues, and a fixed pause of a second at each start."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Source partition -> its task, for those this worker may process now.
        self.partition_tasks: dict[TP, PartitionTask] = {}
        #: What all tasks of the worker together may keep of the newest values.
        self.cache_bytes = CACHE_BYTES
        #: What RocksDB may keep of the files of all tables together.
        self.block_cache_bytes = BLOCK_CACHE_BYTES
        #: Topics whose agents may be slow: what they have not taken yet waits in Kafka and holds up no other topic.
        self.background_topics: frozenset[str] = frozenset()
        #: Headers of the record with which each transaction ends in a changelog: who wrote it.
        self.position_headers: Callable[[], Headers] = list
        #: Called before each step; an app may end the process there.
        self.before_step: Callable[[], None] = lambda: None
        #: What tells whether a partition that this worker does not own can be read here.
        self.standby = StandbyCheck(self.app)
        #: Called before a lost partition of a table is made anew; True: the app brings back what that cannot.
        self.on_loss: Callable[[Loss], Awaitable[bool]] = _brings_nothing_back

        #: Changelog -> partition -> what is on disk of it; as it was when the worker last gave its partitions up.
        self.local_offsets: dict[str, dict[int, LocalOffset]] = {}
        #: Changelog -> partition -> where it ended when this worker began to restore it.
        self.changelog_ends: dict[str, dict[int, int]] = {}
        #: The consumer group; None: the app's id.
        self.group_id: str | None = None
        #: Source topic -> what its transactional ids begin with; by default the app's id.
        self.writer_prefixes: dict[str, str] = {}

    def transactional_id(self, source: TP) -> str:
        """Return the transactional id of the owner of a source partition."""
        return transactional_id(self.writer_prefixes.get(source.topic, self.app.conf.id), source)

    @property
    def by_name(self) -> Mapping[str, Table]:
        """The tables of this process by name."""
        return self.data

    def exclude(self, table: Any) -> None:
        """Do not keep a table in this process: no agent of it writes that."""
        del self[table.name]
        del self._changelogs[table.changelog]

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

    def table_of(self, topic: str) -> Any:
        """The table whose changelog this topic is."""
        return self._changelogs[topic]

    def store(self, changelog: TP) -> Store:
        """The partition on disk that a changelog partition is of; KeyError where it is not open here."""
        return self.table_of(changelog.topic).stores[changelog.partition]

    def on_disk_failure(self, exc: Exception) -> None:
        """End the worker, in whichever thread this is: also a view may be the first to meet it."""
        asyncio.run_coroutine_threadsafe(self.app.consumer.crash(exc), self.app.loop)

    def record_local_offsets(self) -> None:
        """Note how far the partitions on disk are, for the group to know where they are best given to."""
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
        """Look at what earlier starts have left on disk, register the changelogs and start recovery."""
        self.local_offsets = {table.changelog: await in_store_thread(table.on_disk) for table in self.values()}
        await self._update_channels()
        await self.recovery.start()

    async def on_stop(self) -> None:
        """Give up the producers and close the tables."""
        await self.standby.stop()
        await self.recovery.release_partitions()
        await super().on_stop()
        for table in self.values():
            for partition in list(table.stores):
                await table.close(partition)

    async def settle(self) -> bool:
        """Wait until all that was folded is durable; False when that cannot be any more."""
        settling = asyncio.create_task(self._settled())
        while not settling.done():
            # An agent that has failed never ends its step.
            if self.app.crashed:
                settling.cancel()
            await asyncio.wait([settling], timeout=0.1)
        return not settling.cancelled() and settling.result()

    async def _settled(self) -> bool:
        return all(await asyncio.gather(*(task.settle() for task in list(self.partition_tasks.values()))))
