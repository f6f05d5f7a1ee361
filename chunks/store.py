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
from chunks.keys import BEGINNING_KEY, INCOMPLETE_SUFFIX, RESERVED_PREFIX, RESTORING_KEY, parse_position, position_key
from chunks.snapshot import StoreSnapshot, iterate_rows, scan_bounds
from chunks.watch import KeyWatches

log = logging.getLogger(__name__)

T = TypeVar("T")

# Keys that are on disk only, not in the changelog.
_OFFSET_KEY = RESERVED_PREFIX + b"changelog offset"
_WRITE_TIME_KEY = RESERVED_PREFIX + b"time of the last write"
_BEGINNING_OFFSET_KEY = RESERVED_PREFIX + b"offset of the beginning"

#: After this number of puts, a thread that fills a batch releases Python's lock to the thread that
#: serves requests.
PUTS_BETWEEN_PAUSES = 100

#: Number of offsets that Kafka's commit marker occupies after the records of a transaction.
COMMIT_MARKERS = 1
#: Maximum age of a partition on disk. Kafka keeps the tombstones of deleted keys for a day
#: (delete.retention.ms); a disk that has missed a tombstone would contain the key for ever.
MAX_AGE_S = 12 * 3600

WRITE_BUFFER_BYTES = 16 * 2**20
BLOOM_BITS = 10
#: Fraction of a write buffer for its own Bloom filter. Most keys are not in the write buffer, and a
#: lookup in its skip list took a tenth of a query's time. It gives 10 bits a key if key and value
#: have 250 bytes, and takes 82 KiB a store.
WRITE_BUFFER_BLOOM = 0.005

# One thread: a batch has some megabytes, each thread has a malloc arena of its own, and the disk is
# shared anyway.
_store_thread = ThreadPoolExecutor(1, thread_name_prefix="store")


async def in_store_thread(work: Callable[..., T], *args: Any) -> T:
    """Run `work`, which waits for the disk, in a thread.

    A caller that is cancelled meanwhile waits for its end.
    """
    running = asyncio.get_running_loop().run_in_executor(_store_thread, work, *args)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise


@cache
def _block_cache(size: int) -> rocksdict.Cache:
    return rocksdict.Cache(size)


class LocalOffset(NamedTuple):
    """State of a changelog on disk: all records before `offset`, as of `at` (s since 1970)."""

    offset: int
    at: float


class Store:
    """Keys and values of one partition, written in one batch with the offsets that they belong to.

    `offset` is the next changelog record to apply. The store has no write-ahead log: after a crash
    RocksDB is in the state of its last flush, `offset` included, and the changelog contains the
    rest.
    """

    def __init__(
        self, path: Path, block_cache_bytes: int = 8 * 2**20, watches: KeyWatches | None = None,
        on_failure: Callable[[Exception], None] = lambda exc: None,
    ) -> None:  # fmt: skip
        """Create a closed store.

        `on_failure` is called with each DiskFailed that is raised, in any thread.
        """
        self.path = path
        self._on_failure = on_failure
        self.watches = watches or KeyWatches()
        self._cache_bytes = block_cache_bytes
        self._db: rocksdict.Rdict
        self._is_open = False
        #: The store was compared with its changelog since it was opened.
        self.is_verified = False
        #: Number of offsets after `offset` without a record: the marker of a transaction of this
        #: worker.
        self._trailing_markers = 0
        self._without_wal = rocksdict.WriteOptions()
        self._without_wal.disable_wal = True  # type: ignore[method-assign,assignment]  # a property; the stub is wrong
        #: Number of writes, and for each source topic its position with the number of writes at
        #: which it was read.
        self._write_count = 0
        self._positions: dict[str, tuple[int, int | None]] = {}

    def open(self) -> Store:
        """Open the files; create them if they are missing, replace them if they are damaged.

        Raises DiskFailed.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        disk.delete_damaged(self.path)
        try:
            self._db = self._open_db()
        except Exception as exc:  # rocksdict raises no narrower type
            if not disk.is_damage(exc):
                raise self._to_error(exc) from None
            disk.delete_files(self.path, exc)
            self._db = self._open_db()
        self._is_open = True
        return self

    def _open_db(self) -> rocksdict.Rdict:
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
        """Flush and close. Readers go through `Table`, which has dropped the store before."""
        if self._is_open:
            db = self._detach_db()
            try:
                db.flush()
                db.close()
            except Exception as exc:
                log.warning("%s: not flushed completely (%s); the changelog contains the rest", self.path, exc)

    def _detach_db(self) -> rocksdict.Rdict:
        # Without a reference, RocksDB's lock of the files is released even if the close fails.
        db, self._is_open = self._db, False
        del self._db
        return db

    def _to_error(self, exc: Exception) -> Exception:
        error = disk.to_disk_error(self.path, exc)
        if error is not exc:
            self._on_failure(error)
        return error

    def wipe(self) -> None:
        """Delete everything on disk and open an empty store."""
        if self._is_open:
            self._detach_db().close()
        shutil.rmtree(self.path)
        self._write_count += 1
        self.open()

    def write_beginning(self, beginning: bytes, offset: int, keep: bool = False) -> None:
        """Write a beginning, at `offset` of the changelog. Delete the rows unless `keep`."""
        if not keep:
            self.wipe()
        self.apply([(BEGINNING_KEY, beginning), (_BEGINNING_OFFSET_KEY, b"%d" % offset)], offset + 1)

    @property
    def beginning(self) -> tuple[bytes, int] | None:
        """The beginning and its changelog offset; None if records are missing."""
        value, offset = self.get(BEGINNING_KEY), parse_position(self.get(_BEGINNING_OFFSET_KEY))
        return None if value is None or offset is None else (value, offset)

    @property
    def is_incomplete(self) -> bool:
        """Whether records are known to be missing for good."""
        return (self.get(BEGINNING_KEY) or b"").endswith(INCOMPLETE_SUFFIX)

    @property
    def offset(self) -> int:
        """The next record of the changelog to apply; 0 if none is applied."""
        return parse_position(self.get(_OFFSET_KEY)) or 0

    def is_complete_at(self, end: int, topic: str) -> bool:
        """Return whether the store equals the changelog before the offset `end`.

        `topic` is the source topic. The result is False if the store was not compared with the
        changelog yet, is being rebuilt, or is being replaced by a dump.
        """
        return (
            self.is_verified
            and self.offset <= end <= self.offset + self._trailing_markers
            and self.beginning is not None
            and self.position(topic) is not None
            and self.get(RESTORING_KEY) is None
        )

    @property
    def written_at(self) -> float:
        """Time of the last write (s since 1970); the current time if there was none."""
        value = self.get(_WRITE_TIME_KEY)
        return time.time() if value is None else float(value)

    @property
    def age_s(self) -> float:
        """Seconds since the last write."""
        return time.time() - self.written_at

    def position(self, topic: str) -> int | None:
        """Return the next offset of the source topic to fold; None if no record was folded."""
        write_count = self._write_count
        read_at, position = self._positions.get(topic, (-1, None))
        if read_at != write_count:
            value = self.get(position_key(topic))
            position = parse_position(value)
            # A write in another thread meanwhile makes this entry obsolete at once.
            self._positions[topic] = (write_count, position)
        return position

    @property
    def estimated_keys(self) -> int:
        """The approximate number of keys."""
        return self._db.property_int_value("rocksdb.estimate-num-keys") or 0

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when it is absent. Raises DiskFailed."""
        try:
            return self._db.get(key)
        except Exception as exc:
            raise self._to_error(exc) from None

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """Return the values of many keys, in their order, with one call of RocksDB.

        Raises DiskFailed.
        """
        try:
            return self._db.get(keys)  # type: ignore[arg-type,return-value]  # the stub has no overload for a list
        except Exception as exc:
            raise self._to_error(exc) from None

    def scan(self, prefix: bytes = b"", after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows whose key starts with `prefix` and comes after `after`, in key order.

        Raises DiskFailed.
        """
        start, end = scan_bounds(prefix, after)
        # RocksDB needs the end: else it searches the next key behind it, past all deleted keys
        # there, which can take milliseconds. The options own the bytes of the end, and must live as
        # long as the iterator.
        options = rocksdict.ReadOptions()
        options.set_iterate_upper_bound(end)
        yield from iterate_rows(self._db.iter(options), start, end, self._to_error)

    def snapshot(self) -> StoreSnapshot:
        """Return a snapshot of the store, to read while writes go on."""
        return StoreSnapshot(self._db, self._to_error)

    def apply(self, records: Iterable[tuple[bytes, bytes | None]], offset: int, markers: int = 0) -> None:
        """Write changelog records and the offset after them in one batch; a value of None deletes.

        The next `markers` offsets contain no record. Raises DiskFailed.
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
        self._trailing_markers = 0
        try:
            self._db.write(batch, self._without_wal)
        except Exception as exc:
            raise self._to_error(exc) from None
        self._trailing_markers = markers
        self._write_count += 1
