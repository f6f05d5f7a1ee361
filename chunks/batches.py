"""Reading of fetched record batches that survives any batch a client can write.

aiokafka's fetcher raises at the first record that it cannot decode, and again at each restart of
the process. It expands a compressed batch completely, whatever its size. `read_tolerantly` replaces
the two classes in which the fetcher does this. A batch that aiokafka can decode is decoded by it;
only another batch is decoded again, by `chunks.record_batch`.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.structs import ConsumerRecord, TopicPartition

from chunks.decompress import Unexpandable
from chunks.record_batch import (
    HEADER,
    DecodedRecord,
    UnreadableBytes,
    decode_batch,
    expand_batch,
    unreadable_batch,
)
from chunks.records import FetchedRecord

log = logging.getLogger(__name__)

#: When the batches of a fetch have expanded to more than this, the rest is fetched again. A fetch
#: limits compressed bytes only.
MAX_FETCH_BYTES = 16 * 2**20

#: Offset and length, before each batch of any format.
_PREFIX = struct.Struct(">qi")
_MAGIC_BYTE = struct.calcsize(">qii")
#: The smallest batch: a record of the first format without key and value.
_MIN_BYTES = _PREFIX.size + 14
_FIRST_MAGIC_WITH_HEADER = 2
_CONTROL_KEY = struct.Struct(">hh")
_ABORT = 0


class BatchReader:
    """Splits the bytes of a fetch into batches. Replaces: aiokafka's MemoryRecords."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position, self._size = memoryview(data), 0, len(data)
        self._expanded_bytes = 0
        self._batch = self._data[:0]
        self._end = self._next_end()

    def size_in_bytes(self) -> int:
        """Return the number of bytes, an incomplete batch at the end included."""
        return self._size

    def has_next(self) -> bool:
        """Return whether there is another complete batch to decode now."""
        return self._end > 0 and self._expanded_bytes <= MAX_FETCH_BYTES

    def next_batch(self) -> Any:
        """Return aiokafka's object of the next batch, which decodes nothing but the header yet.

        Raises CorruptRecordException for a batch that no broker stores.
        """
        batch = self._batch = self._data[self._position : self._end]
        if len(batch) < _MIN_BYTES:
            raise CorruptRecordException(f"a batch has only {len(batch)} bytes")
        magic = batch[_MAGIC_BYTE]
        if magic >= _FIRST_MAGIC_WITH_HEADER and len(batch) < HEADER.size:
            raise CorruptRecordException(f"a batch has only {len(batch)} bytes")
        self._position = self._end
        self._end = self._next_end()
        return DefaultRecordBatch(batch) if magic >= _FIRST_MAGIC_WITH_HEADER else LegacyRecordBatch(batch, magic)

    def tuples(self, batch: Any, tp: TopicPartition, start: int) -> list[FetchedRecord]:
        """Return the records of the last batch from offset `start` on, as tuples.

        An unreadable record has no key, and UnreadableBytes as its value.
        """
        try:
            return [
                (record.offset, record.key, record.value) for record in self._expand(batch) if record.offset >= start
            ]
        except Exception as exc:  # any bytes, so any error of the decoder
            return [(record[0], record[3], record[4]) for record in self._decode(batch, tp, exc) if record[0] >= start]

    def records(self, batch: Any, tp: TopicPartition) -> Iterable[Any]:
        """Return the readable records of the last batch, as aiokafka's objects or DecodedRecords.

        The others are skipped with one log line.
        """
        try:
            return list(self._expand(batch))
        except Exception as exc:  # any bytes, so any error of the decoder
            return [record for record in self._decode(batch, tp, exc) if not isinstance(record.value, UnreadableBytes)]

    def _next_end(self) -> int:
        """Return the end of the next complete batch; 0 if there is none."""
        if self._size - self._position < _PREFIX.size:
            return 0
        length: int = _PREFIX.unpack_from(self._data, self._position)[1]
        end = self._position + _PREFIX.size + max(length, 0)
        return end if end <= self._size else 0

    def _expand(self, batch: Any) -> Any:
        if not isinstance(batch, DefaultRecordBatch) or not batch.compression_type:
            return batch
        expanded = expand_batch(self._batch)
        self._expanded_bytes += len(expanded)
        return DefaultRecordBatch(expanded)

    def _decode(self, batch: Any, tp: TopicPartition, error: Exception) -> list[DecodedRecord]:
        """Return what can be read of a batch that aiokafka cannot decode, and log it."""
        if isinstance(error, Unexpandable):
            records = list(unreadable_batch(self._batch, str(error)))  # not expanded a second time
        elif isinstance(batch, DefaultRecordBatch):
            records = list(decode_batch(self._batch))
        else:
            problem = f"a batch of an old format is damaged: {error}"
            value = UnreadableBytes.of(self._batch, problem)
            records = [DecodedRecord(batch.next_offset - 1, -1, 0, None, value, [])]
        problems = [record.value.problem for record in records if isinstance(record.value, UnreadableBytes)]
        log.warning(
            "%s[%s], %d records from offset %d on: %s",
            tp.topic, tp.partition, len(records), batch.base_offset,
            f"{len(problems)} cannot be read ({problems[0]})" if problems else f"some headers cannot be read ({error})",
        )  # fmt: skip
        return records


def is_skipped(partition: fetcher.PartitionRecords, batch: Any) -> bool:
    """Return whether the batch is a transaction marker or belongs to an aborted transaction."""
    if partition._isolation_level == READ_COMMITTED and batch.producer_id is not None:
        partition._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch:
            if is_abort_marker(batch):
                partition._aborted_producers.discard(batch.producer_id)
        elif batch.is_transactional and batch.producer_id in partition._aborted_producers:
            return True
    is_control: bool = batch.is_control_batch
    return is_control


def is_abort_marker(batch: Iterator[Any]) -> bool:
    """Return whether a control batch ends an aborted transaction.

    There are other kinds, kinds of later versions of Kafka, and batches emptied by compaction.
    """
    try:
        version, kind = _CONTROL_KEY.unpack_from(next(batch).key)
    except Exception:  # any bytes, so any error of the decoder
        return False
    return bool(version >= 0 and kind == _ABORT)


def next_batches(partition: fetcher.PartitionRecords) -> Iterator[Any]:
    """Yield the batches with committed records; the partition's next offset follows them.

    Raises CorruptRecordException for a wrong checksum: the bytes are not those that a client wrote.
    """
    reader: BatchReader = partition._records
    while reader.has_next():
        batch = reader.next_batch()
        if partition._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {partition._tp}")
        if not is_skipped(partition, batch):
            yield batch
        partition.next_fetch_offset = batch.next_offset


class _PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka has no types
    """Replaces: an exception for a record that cannot be decoded."""

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[ConsumerRecord]:
        tp: TopicPartition = self._tp
        for batch in next_batches(self):
            start: int = self.next_fetch_offset
            for record in self._records.records(batch, tp):
                # A fetch returns whole batches: the first one may begin before the requested offset.
                if record.offset >= start:
                    consumer_record = self._consumer_record(tp, record)
                    self.next_fetch_offset = record.offset + 1
                    yield consumer_record


def read_tolerantly() -> None:
    """Let all consumers of this process survive unreadable records; call it before one starts."""
    fetcher.MemoryRecords = BatchReader
    fetcher.PartitionRecords = _PartitionRecords
