"""One partition of one table on disk: a RocksDB that is never ahead of its changelog."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import rocksdict

from chunks import disk
from chunks.watch import KeyWatches

log = logging.getLogger(__name__)

T = TypeVar("T")

#: No key of a table may start with it: these are the engine's own. (No UTF-8 text and no msgpack array does.)
RESERVED_PREFIX = b"\xff"
_OFFSET_KEY = RESERVED_PREFIX + b"changelog offset"
_WRITE_TIME_KEY = RESERVED_PREFIX + b"time of the last write"
_POSITION_PREFIX = RESERVED_PREFIX + b"position of "
#: The first record of a table partition's changelog: an id of its own, and what is known to be missing. All that lies
#: before it counts no more.
BEGINNING_KEY = RESERVED_PREFIX + b"beginning"
#: What the value of a beginning ends with where older records are missing for good.
INCOMPLETE_SUFFIX = b" incomplete"
_BEGINNING_OFFSET_KEY = RESERVED_PREFIX + b"offset of the beginning"
#: In a changelog whose values are being replaced by those of a dump, until the last of them is written.
RESTORING_KEY = RESERVED_PREFIX + b"restoring"

#: After so many a thread that fills a batch offers Python's lock to the one that answers requests.
PUTS_BETWEEN_PAUSES = 100

#: Behind the records of a transaction Kafka writes that it was committed.
COMMIT_MARKERS = 1
#: Kafka keeps the markers of deleted keys for a day (delete.retention.ms); a disk that missed one would show the key
#: for ever.
MAX_AGE_S = 12 * 3600

WRITE_BUFFER_BYTES = 16 * 2**20
BLOOM_BITS = 10
#: Of a write buffer, for a Bloom filter of its own: most keys are not among the newest, and to find that out in a skip
#: list took a tenth of a query's time. 10 bits a key where key and value have 250 bytes; 82 KiB of each store's memory.
WRITE_BUFFER_BLOOM = 0.005

# One thread: a batch is some megabytes, each thread has an arena of its own in malloc, and the disk is one anyway.
_threads = ThreadPoolExecutor(1, thread_name_prefix="store")


async def in_store_thread(work: Callable[..., T], *args: Any) -> T:
    """Run `work`, which waits for the disk, in a thread. Whoever is cancelled meanwhile still waits for its end."""
    running = asyncio.get_running_loop().run_in_executor(_threads, work, *args)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise


@cache
def _block_cache(size: int) -> rocksdict.Cache:
    return rocksdict.Cache(size)


def position_key(topic: str) -> bytes:
    """Where a table notes up to which offset of `topic` its state goes."""
    return _POSITION_PREFIX + topic.encode()


class LocalOffset(NamedTuple):
    """What is on disk of a changelog: all before `offset`, as it was at the time `at` (s since 1970)."""

    offset: int
    at: float


class StoreSnapshot:
    """A store as it was at one moment, for one read after the other.

    It is one iterator of RocksDB: those of a rocksdict.Snapshot show what is there when they are made.
    """

    def __init__(self, rows: rocksdict.Rdict, failed: Callable[[Exception], Exception]) -> None:
        self._at = rows.iter()
        self._failed = failed

    def get(self, key: bytes) -> bytes | None:
        """The value of one key. Raises DiskFailed."""
        found = next(_iterate(self._at, key, key + b"\x00", self._failed), None)
        return None if found is None else found[1]

    def scan(self, prefix: bytes = b"", after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """All keys that start with `prefix` and come after `after`, and their values, in the order of the keys.

        Raises DiskFailed.
        """
        return _iterate(self._at, *_scan_bounds(prefix, after), self._failed)


def _scan_bounds(prefix: bytes, after: bytes | None) -> tuple[bytes, bytes]:
    """The first key that may start with `prefix` and come after `after`, and the first behind all of these.

    Keys of the engine are not among them.
    """
    head = prefix.rstrip(b"\xff")
    behind = head[:-1] + bytes([head[-1] + 1]) if head else RESERVED_PREFIX
    return max(prefix, b"" if after is None else after + b"\x00"), min(behind, RESERVED_PREFIX)


def _iterate(
    at: rocksdict.RdictIter, first: bytes, end: bytes, failed: Callable[..., Exception]
) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values from `first` on and before `end`.

    A loop over rocksdict's `items` ends where RocksDB cannot read on as if there were no more.
    """
    key, value, valid, step = at.key, at.value, at.valid, at.next
    at.seek(first)
    while valid():
        found = key()
        if found >= end:
            return
        yield found, value()
        step()
    try:
        at.status()
    except Exception as exc:
        raise failed(exc) from None


class Store:
    """Keys and values of one partition, and two numbers that are written with them in one batch.

    `offset` is the next record of the changelog to apply. Nothing is written to a log of its own: after a crash RocksDB
    is as it was at its last flush, `offset` included, and the changelog has the rest.
    """

    def __init__(
        self, path: Path, block_cache_bytes: int = 8 * 2**20, watches: KeyWatches | None = None,
        on_failure: Callable[[Exception], None] = lambda exc: None,
    ) -> None:  # fmt: skip
        self.path = path
        #: Told of each DiskFailed that is raised, in whichever thread.
        self._on_failure = on_failure
        self.watches = watches or KeyWatches()
        self._cache_bytes = block_cache_bytes
        self._db: rocksdict.Rdict | None = None
        #: Whether it was compared with its changelog since it was opened.
        self.is_verified = False
        #: Offsets behind `offset` that hold nothing: the marker of a transaction that this worker has committed.
        self._markers = 0
        self._unlogged = rocksdict.WriteOptions()
        self._unlogged.disable_wal = True
        #: How often this was written to, and of each source topic the position and after how many writes it was read.
        self._writes = 0
        self._positions: dict[str, tuple[int, int | None]] = {}

    def open(self) -> Store:
        """Open the files, made when they are missing, and anew when they are damaged. Raises DiskFailed."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        disk.forget_damaged(self.path)
        try:
            self._db = self._opened()
        except Exception as exc:  # rocksdict raises nothing else
            if not disk.is_damage(exc):
                raise self._failed(exc) from None
            disk.forget(self.path, exc)
            self._db = self._opened()
        return self

    def _opened(self) -> rocksdict.Rdict:
        table_options = rocksdict.BlockBasedOptions()
        table_options.set_block_cache(_block_cache(self._cache_bytes))
        table_options.set_bloom_filter(BLOOM_BITS, block_based=False)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_memtable_prefix_bloom_ratio(WRITE_BUFFER_BLOOM)
        options.set_memtable_whole_key_filtering(True)
        options.set_max_open_files(256)
        options.set_keep_log_file_num(2)
        options.set_block_based_table_factory(table_options)
        return rocksdict.Rdict(str(self.path), options=options)

    def close(self) -> None:
        """Flush and close; whoever reads asks `Table`, which no longer has it then."""
        if self._db is not None:
            db, self._db = self._db, None
            try:
                db.flush()
                db.close()
            except Exception as exc:
                log.warning("%s: not all is on disk (%s); the rest is read from the changelog again", self.path, exc)

    def _failed(self, exc: Exception) -> Exception:
        failure = disk.failure(self.path, exc)
        if failure is not exc:
            self._on_failure(failure)
        return failure

    def wipe(self) -> None:
        """Forget everything on disk and start empty."""
        if self._db is not None:
            db, self._db = self._db, None
            db.close()
        shutil.rmtree(self.path)
        self._writes += 1
        self.open()

    def write_beginning(self, beginning: bytes, offset: int, keep: bool = False) -> None:
        """Start from a beginning that lies at `offset` of the changelog; what there was is forgotten, or kept."""
        if not keep:
            self.wipe()
        self.apply([(BEGINNING_KEY, beginning), (_BEGINNING_OFFSET_KEY, b"%d" % offset)], offset + 1)

    @property
    def beginning(self) -> tuple[bytes, int] | None:
        """The beginning and its offset in the changelog; None: the changelog had none, so something is missing."""
        value, at = self.get(BEGINNING_KEY), self.get(_BEGINNING_OFFSET_KEY)
        return None if value is None or at is None else (value, int(at))

    @property
    def is_incomplete(self) -> bool:
        """Whether it is known that something is missing for good."""
        return (self.get(BEGINNING_KEY) or b"").endswith(INCOMPLETE_SUFFIX)

    @property
    def offset(self) -> int:
        """The next record of the changelog that is not applied yet; 0 when nothing is."""
        return int(self.get(_OFFSET_KEY) or 0)

    def is_complete_at(self, end: int, topic: str) -> bool:
        """Whether this is what its changelog says below the offset `end`, folded from `topic`.

        Not where it has not been compared with it, is being made anew, or is being replaced by a dump.
        """
        return (
            self.is_verified
            and self.offset <= end <= self.offset + self._markers
            and self.beginning is not None
            and self.position(topic) is not None
            and self.get(RESTORING_KEY) is None
        )

    @property
    def written_at(self) -> float:
        """When it was last written to (s since 1970); now when it never was."""
        value = self.get(_WRITE_TIME_KEY)
        return time.time() if value is None else float(value)

    @property
    def age_s(self) -> float:
        """Seconds since then."""
        return time.time() - self.written_at

    def position(self, topic: str) -> int | None:
        """The next offset of the source topic that the state does not contain yet; None when it contains nothing."""
        writes = self._writes
        known, position = self._positions.get(topic, (-1, None))
        if known != writes:
            value = self.get(position_key(topic))
            position = None if value is None else int(value)
            # What is written meanwhile, in another thread, makes this one old at once.
            self._positions[topic] = (writes, position)
        return position

    @property
    def estimated_keys(self) -> int:
        """About how many keys there are."""
        return self._db.property_int_value("rocksdb.estimate-num-keys") or 0

    def get(self, key: bytes) -> bytes | None:
        """The value of one key. Raises DiskFailed."""
        try:
            return self._db.get(key)
        except Exception as exc:
            raise self._failed(exc) from None

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of many keys in one call. Raises DiskFailed."""
        try:
            return self._db.get(keys)
        except Exception as exc:
            raise self._failed(exc) from None

    def scan(self, prefix: bytes = b"", after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """All keys that start with `prefix` and come after `after`, and their values, in the order of the keys.

        Raises DiskFailed.
        """
        first, end = _scan_bounds(prefix, after)
        # RocksDB has to know the end: it would look for the key behind it, past all that was deleted there, for
        # milliseconds. The options keep the bytes of it, and have to live as long as the iterator.
        options = rocksdict.ReadOptions()
        options.set_iterate_upper_bound(end)
        yield from _iterate(self._db.iter(options), first, end, self._failed)

    def snapshot(self) -> StoreSnapshot:
        """The store as it is now, to be read while it is written to."""
        return StoreSnapshot(self._db, self._failed)

    def apply(self, records: Iterable[tuple[bytes, bytes | None]], offset: int, markers: int = 0) -> None:
        """Write changelog records and the offset after them in one batch; a value of None deletes.

        Behind them lie `markers` offsets that hold nothing. Raises DiskFailed.
        """
        batch = rocksdict.WriteBatch(raw_mode=True)
        put = batch.put
        for number, (key, value) in enumerate(records):
            if not number % PUTS_BETWEEN_PAUSES:
                time.sleep(0)
            if value is None:
                batch.delete(key)
            else:
                put(key, value)
        put(_OFFSET_KEY, b"%d" % offset)
        put(_WRITE_TIME_KEY, b"%d" % time.time())
        self._markers = 0
        try:
            self._db.write(batch, self._unlogged)
        except Exception as exc:
            raise self._failed(exc) from None
        self._markers = markers
        self._writes += 1
