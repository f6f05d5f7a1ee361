"""`lately tables dump`: all tables as they were at one moment, in one file, while orders flow or with no worker at all.

The changelogs are read, and a table that is fed by another one is read before it: then the other one lacks nothing of
what it contains. What was on its way between them goes into the file too (docs/decisions/011-a-dump-is-one-moment.md).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from aiokafka.structs import ConsumerRecord
from faust.types import TP

from app.errors import BadTopic
from app.folder_lock import lock_folder
from app.kafka.admin import missing_topics
from app.settings import Settings
from app.topics import ORIGIN, TABLES, Topics
from chunks import RESTORING_KEY, Store
from commands.changelogs import ChangelogReader, open_changelogs
from commands.tables.dump_file import FORMAT, FRAME_BYTES, Head, Pairs, Part, Record, Records, Writer, writing
from domain.digests import PartitionDigest
from domain.values import rfc3339

#: In this order they are read: a table that is fed by another one before that.
DOWNSTREAM_FIRST = ("similar", "baskets", "by_product", "by_user", "product_partials")
#: A topic between two tables, the table that it feeds, and the one that is written with it.
BETWEEN = {"purchase_changes": ("baskets", "by_user"), "co_purchases": ("similar", "baskets")}

T = TypeVar("T", bound=tuple)
Progress = Callable[[int, int], None]


class Copied(NamedTuple):
    """A partition of a table, copied; the store is closed.

    `sure` is the changelog offset up to which that of product_partials is of the same moment as by_user.
    """

    store: Store
    position: int | None
    sure: int = 0


Copies = dict[tuple[str, int], Copied]


async def run(settings: Settings, path: Path, progress: Progress = lambda done, total: None) -> Head:
    """Write all tables to `path`; what is in the file. Raises ServerAway, BadTopic, LatelyError."""
    missing = await missing_topics(settings)
    if missing:
        raise BadTopic(f"there is nothing to dump, topics are missing: {', '.join(missing)}; look at LATELY_ID")
    with folder(settings) as stores:
        async with open_changelogs(settings) as logs:
            copies: Copies = {}
            for table in DOWNSTREAM_FIRST:
                for partition in range(settings.partitions):
                    copies[table, partition] = await _copy(logs, stores, table, partition, copies)
            head = _head(settings, copies)
            with writing(path) as writer:
                writer.put(head)
                done = 0
                for one in head.parts:
                    for frame in _pairs(one, copies[one.table, one.partition].store):
                        writer.put(frame)
                        done += len(frame.pairs)
                        progress(done, head.keys)
                await _on_the_way(settings, logs, writer, head)
    return head


async def _copy(logs: ChangelogReader, stores: Stores, table: str, partition: int, copies: Copies) -> Copied:
    sure = 0
    if table == "by_user":
        sure = await logs.decided_offset(logs.tp("product_partials", partition))
    with closing(stores.make(table, partition)) as store:
        if table == "product_partials":
            # It is written by the transactions that write by_user, and has to end with the same one.
            _, until, below = copies["by_user", partition]
            position = await logs.copy(table, partition, store, until or 0, below)
        else:
            position = await logs.copy(table, partition, store)
        if store.get(RESTORING_KEY) is not None:
            raise BadTopic(f"{table} {partition} is half restored: run `lately tables restore` to its end first")
    return Copied(store, position, sure)


def _head(settings: Settings, copies: Copies) -> Head:
    parts = []
    for table in TABLES:
        for partition in range(settings.partitions):
            store, position, _ = copies[table, partition]
            digest = PartitionDigest(table)
            with closing(store.open()):
                for pair in store.scan():
                    digest.add(*pair)
            parts.append(Part(table, partition, position, digest.keys, digest.hexdigest()))
    return Head(FORMAT, settings.group, settings.partitions, rfc3339(time.time_ns() // 1000), parts)


def _pairs(part: Part, store: Store) -> Iterator[Pairs]:
    with closing(store.open()):
        for some in grouped(store.scan()):
            yield Pairs(part.table, part.partition, some)


async def _on_the_way(settings: Settings, logs: ChangelogReader, writer: Writer, head: Head) -> None:
    """Write what the tables of the dump have sent, and those that it was sent to do not contain."""
    for name, (table, sender) in BETWEEN.items():
        topic, read, sent = getattr(Topics(settings), name).name, head.positions(table), head.positions(sender)
        for partition in range(settings.partitions):
            tp = TP(topic, partition)
            waiting: list[Record] = []
            size = 0
            async for record in logs.read_between(tp, read[partition], await logs.end_offset(tp)):
                source, position = _origin(record)
                if position <= sent.get(source, 0):
                    waiting.append((record.key, record.value, list(record.headers)))
                    size += len(record.key or b"") + len(record.value or b"")
                    if size >= FRAME_BYTES:
                        writer.put(Records(name, partition, waiting))
                        waiting, size = [], 0
            if waiting:
                writer.put(Records(name, partition, waiting))


def _origin(record: ConsumerRecord) -> tuple[int, int]:
    """The source partition and position that a record follows from; those of versions before did not say it."""
    said = dict(record.headers).get(ORIGIN, b"0@0")
    partition, _, position = said.partition(b"@")
    return int(partition), int(position)


def grouped(pairs: Iterable[T]) -> Iterator[list[T]]:
    """Keys and values (or None) in lists of about FRAME_BYTES."""
    some, size = [], 0
    for pair in pairs:
        some.append(pair)
        size += len(pair[0]) + len(pair[1] or b"")
        if size >= FRAME_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


class Stores:
    """Stores in a folder, for copies of changelogs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def make(self, table: str, partition: int, kind: type[Store] = Store) -> Store:
        """An empty store; not many should be written to at once, each takes memory."""
        return kind(self._path / f"{table}-{partition}").open()


@contextmanager
def folder(settings: Settings) -> Iterator[Stores]:
    """Room for copies beside the worker's tables, gone at the end."""
    path = Path(f"{settings.folder}-tables")
    with lock_folder(path, "another dump, restore or rescale", "wait for its end, or stop it"):
        copies = path / "copies"
        shutil.rmtree(copies, ignore_errors=True)  # of one that was killed
        try:
            yield Stores(copies)
        finally:
            shutil.rmtree(path)
