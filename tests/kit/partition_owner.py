"""Workers that own one source partition, one after the other, on the real broker."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from aiokafka import AIOKafkaProducer
from faust.types import TP

from chunks.chunk import Chunk
from chunks.keys import position_key
from chunks.partition_task import BATCH_BYTES, MAX_REQUEST_BYTES, TRANSACTION_TIMEOUT_MS, PartitionTask
from chunks.records import RecordRange
from chunks.store import Store
from tests.kit.broker import new_topic, records

SOURCE = TP("orders", 0)
POSITION = position_key("orders")
TABLES = ("by_user", "totals")
LIMIT_S = 60


class Producer(AIOKafkaProducer):
    """A real producer that can be made to stop before it commits, as if the network were slow."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.commits = 0
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    def hold(self) -> None:
        self.reached.clear()
        self.go_on.clear()

    async def commit_transaction(self) -> None:
        # What was sent is in the log by now; that it counts is not.
        self.reached.set()
        await self.go_on.wait()
        await super().commit_transaction()
        self.commits += 1


@dataclass
class Owner:
    """One worker's side of the partition."""

    task: PartitionTask
    producer: Producer
    stores: dict[str, Store]
    failures: list[BaseException] = field(default_factory=list)
    failed: asyncio.Event = field(default_factory=asyncio.Event)

    async def on_failure(self, exc: BaseException) -> None:
        self.failures.append(exc)
        self.failed.set()

    def begin(self, count: int = 1, **changes: dict) -> Chunk:
        """A step over the next `count` records that assigns these changes by table."""
        first = self.task.position
        chunk = self.task.begin_step(RecordRange(first, first + count, [(first + n, b"k", b"v") for n in range(count)]))
        for name, values in changes.items():
            chunk.view(SimpleNamespace(name=name)).update(values)
        return chunk

    async def step(self, count: int = 1, **changes: dict) -> None:
        await self.task.end_step(self.begin(count, **changes))

    async def stops_before_committing_its_second_step(self) -> None:
        """Commit one step, send the next one, and commit no more until `producer.go_on` is set."""
        await self.step(by_user={b"ann": b"1"})
        assert await self.settled()
        self.producer.hold()
        await self.step(by_user={b"ann": b"late"})
        await self.producer.reached.wait()

    async def settled(self) -> bool:
        return await self.task.settle()


class Partition:
    """The topics around one source partition."""

    def __init__(self, kafka: str, folder: Path, **config: str) -> None:
        self.kafka, self.folder = kafka, folder
        self.changelogs = {name: new_topic(kafka, **config) for name in TABLES}
        self.other = new_topic(kafka, partitions=2)
        self.id = uuid.uuid4().hex

    @asynccontextmanager
    async def owner(self, name: str = "first", position: int = 0) -> AsyncIterator[Owner]:
        """A worker that takes the partition over; all owners have the same transactional id."""
        producer = Producer(
            bootstrap_servers=self.kafka,
            transactional_id=self.id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_batch_size=BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
        )
        stores = {table: Store(self.folder / name / f"{table}-0.db").open() for table in TABLES}
        places = {table: (TP(self.changelogs[table], 0), stores[table]) for table in TABLES}
        owner = Owner(None, producer, stores)
        stamp = [("worker", name.encode())]
        owner.task = PartitionTask(SOURCE, places, producer, 10**6, owner.on_failure, position_headers=stamp)
        await producer.start()
        owner.task.open(position)
        try:
            yield owner
        finally:
            producer.go_on.set()
            await owner.task.close()
            for store in stores.values():
                store.close()

    def changelog(self, table: str, isolation: str = "read_committed") -> list[tuple]:
        return records(self.kafka, self.changelogs[table], isolation=isolation)


def within_limit(work: Callable[[], Coroutine]) -> list[dict]:
    """Run `work`; a test that hangs fails. Returns what the loop complains of, such as exceptions never looked at."""
    complaints: list[dict] = []

    async def listening() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await asyncio.wait_for(work(), LIMIT_S)
        gc.collect()

    asyncio.run(listening())
    gc.collect()
    return complaints


async def seen(function: Callable, *args: object) -> list:
    """Call a reader that blocks, while the tasks go on."""
    return await asyncio.to_thread(function, *args)


async def still_waits(task: asyncio.Task) -> bool:
    """Whether `task` is not done after everything else that could go on has had its turn."""
    for _ in range(100):
        await asyncio.sleep(0)
    return not task.done()
