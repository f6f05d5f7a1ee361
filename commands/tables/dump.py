"""`lately tables dump`: all tables at one moment in one file, with or without running workers.

It reads the changelogs, each table before the table that sends its input: the sender then contains everything that the
receiver contains. Records in transit between two tables go into the file too
(docs/decisions/011-a-dump-is-one-moment.md).
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
from app.topics import DUMPED_TABLES, ORIGIN, Topics
from chunks import RESTORING_KEY, Store
from commands.changelogs import ChangelogReader, open_changelogs
from commands.tables.dump_file import (
    FORMAT,
    FRAME_BYTES,
    DumpHead,
    DumpRecord,
    DumpWriter,
    PairsFrame,
    PartitionSummary,
    RecordsFrame,
    open_dump,
)
from domain.digests import PartitionDigest
from domain.values import rfc3339

#: Order of reading: a table before the table that sends its input.
DOWNSTREAM_FIRST = ("similar", "baskets", "by_product", "by_user", "product_partials")
#: Topic between two tables -> (receiving table, sending table).
INTERMEDIATE_TOPICS = {"purchase_changes": ("baskets", "by_user"), "co_purchases": ("similar", "baskets")}

PairT = TypeVar("PairT", bound="tuple[bytes, bytes | None] | tuple[bytes, bytes]")
StoreT = TypeVar("StoreT", bound=Store)
Progress = Callable[[int, int], None]


class TableCopy(NamedTuple):
    """Copy of a table partition in a closed store.

    `decided_offset` is the offset of the changelog of product_partials that corresponds to the same moment.
    """

    store: Store
    position: int | None
    decided_offset: int = 0


TableCopies = dict[tuple[str, int], TableCopy]


async def run(settings: Settings, path: Path, progress: Progress = lambda done, total: None) -> DumpHead:
    """Write all tables to `path`, and return its head. Raises ServerAway, BadTopic, LatelyError."""
    missing = await missing_topics(settings)
    if missing:
        raise BadTopic(f"nothing to dump, these topics do not exist: {', '.join(missing)}; check LATELY_ID")
    with temporary_stores(settings) as stores:
        async with open_changelogs(settings) as logs:
            copies: TableCopies = {}
            for table in DOWNSTREAM_FIRST:
                for partition in range(settings.partitions):
                    copies[table, partition] = await _copy(logs, stores, table, partition, copies)
            head = _summarize(settings, copies)
            with open_dump(path) as writer:
                writer.put(head)
                done = 0
                for part in head.parts:
                    for frame in _pairs_frames(part, copies[part.table, part.partition].store):
                        writer.put(frame)
                        done += len(frame.pairs)
                        progress(done, head.keys)
                await _write_records_in_transit(settings, logs, writer, head)
    return head


async def _copy(
    logs: ChangelogReader, stores: TemporaryStores, table: str, partition: int, copies: TableCopies
) -> TableCopy:
    decided_offset = 0
    if table == "by_user":
        decided_offset = await logs.decided_offset(logs.tp("product_partials", partition))
    with closing(stores.create(table, partition, Store)) as store:
        if table == "product_partials":
            # The transactions of by_user also write this table: both copies must end with the same transaction.
            _, until, below = copies["by_user", partition]
            position = await logs.copy(table, partition, store, until or 0, below)
        else:
            position = await logs.copy(table, partition, store)
        if store.get(RESTORING_KEY) is not None:
            raise BadTopic(f"{table} {partition} is half restored: first repeat `lately tables restore` until it ends")
    return TableCopy(store, position, decided_offset)


def _summarize(settings: Settings, copies: TableCopies) -> DumpHead:
    parts = []
    for table in DUMPED_TABLES:
        for partition in range(settings.partitions):
            store, position, _ = copies[table, partition]
            digest = PartitionDigest(table)
            with closing(store.open()):
                for pair in store.scan():
                    digest.add(*pair)
            parts.append(PartitionSummary(table, partition, position, digest.keys, digest.hexdigest()))
    return DumpHead(FORMAT, settings.group, settings.partitions, rfc3339(time.time_ns() // 1000), parts)


def _pairs_frames(part: PartitionSummary, store: Store) -> Iterator[PairsFrame]:
    with closing(store.open()):
        for pairs in group_by_size(store.scan()):
            yield PairsFrame(part.table, part.partition, pairs)


async def _write_records_in_transit(
    settings: Settings, logs: ChangelogReader, writer: DumpWriter, head: DumpHead
) -> None:
    """Write the records that a table of the dump has sent and the receiving table does not contain."""
    for name, (table, sender) in INTERMEDIATE_TOPICS.items():
        topic, read, sent = getattr(Topics(settings), name).name, head.positions(table), head.positions(sender)
        for partition in range(settings.partitions):
            tp = TP(topic, partition)
            records: list[DumpRecord] = []
            size = 0
            async for record in logs.read_between(tp, read[partition], await logs.end_offset(tp)):
                source, position = _origin(record)
                if position <= sent.get(source, 0):
                    records.append((record.key, record.value, list(record.headers)))
                    size += len(record.key or b"") + len(record.value or b"")
                    if size >= FRAME_BYTES:
                        writer.put(RecordsFrame(name, partition, records))
                        records, size = [], 0
            if records:
                writer.put(RecordsFrame(name, partition, records))


def _origin(record: ConsumerRecord) -> tuple[int, int]:
    """Source partition and position of the input of a record; older versions wrote no header."""
    header = dict(record.headers).get(ORIGIN, b"0@0")
    partition, _, position = header.partition(b"@")
    return int(partition), int(position)


def group_by_size(pairs: Iterable[PairT]) -> Iterator[list[PairT]]:
    """Group pairs of key and value (or None) into lists of about FRAME_BYTES."""
    group: list[PairT] = []
    size = 0
    for pair in pairs:
        group.append(pair)
        size += len(pair[0]) + len(pair[1] or b"")
        if size >= FRAME_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


class TemporaryStores:
    """Creates stores for copies of changelogs in a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self, table: str, partition: int, store_type: type[StoreT]) -> StoreT:
        """Create an empty store; each store that is being written needs memory."""
        store = store_type(self._path / f"{table}-{partition}")
        store.open()
        return store


@contextmanager
def temporary_stores(settings: Settings) -> Iterator[TemporaryStores]:
    """Provide temporary stores beside the worker's tables; they are deleted at the end."""
    path = Path(f"{settings.folder}-tables")
    with lock_folder(path, "another dump, restore or rescale", "wait for its end, or stop it"):
        copies = path / "copies"
        shutil.rmtree(copies, ignore_errors=True)  # left by a killed process
        try:
            yield TemporaryStores(copies)
        finally:
            shutil.rmtree(path)
