"""Tolerant decoder of record batches, for batches that aiokafka's decoder refuses.

aiokafka's decoder raises at the first unreadable byte, for example at a header whose name is not
UTF-8, and the other records of the batch are lost for the reader. This decoder is slower, and gets
out of a batch all that can be read. It is pure: bytes in, records out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from chunks.decompress import MAX_EXPANDED_BYTES, Unexpandable, expand

#: Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first timestamp, max
#: timestamp, producer id and epoch, base sequence, number of records.
HEADER = struct.Struct(">qiibIhiqqqhii")
_COUNT = struct.Struct(">i")
#: The second byte of the attributes, which are big-endian.
_ATTRIBUTES_BYTE = struct.calcsize(">qiibIb")
CODEC_MASK, LOG_APPEND_TIME = 0x07, 0x08

#: Limit of the records of a compressed batch. Each takes some 150 bytes in memory besides its
#: content, and a compressed one may take less than a bit in Kafka.
MAX_EXPANDED_RECORDS = 500_000
#: Limit of the unreadable records that one batch yields. A header can claim two billion records; the
#: last unreadable record stands for all further offsets.
MAX_UNREADABLE = 10_000
#: The bytes of an unreadable record to keep. A dead letter contains them.
MAX_KEPT_BYTES = 2**20

_MAX_VARINT_BYTES = 10
_INT64, _SIGN = 2**64, 2**63


class UnreadableBytes(bytes):
    """The bytes of a record that cannot be taken apart; `problem` is the reason.

    They are no event and no state: a reader that does not know this class finds malformed bytes.
    """

    problem: str = ""

    @classmethod
    def of(cls, data: bytes | memoryview, problem: str) -> UnreadableBytes:
        """Return the first bytes of `data` with the reason why they are unreadable."""
        unreadable = cls(data[:MAX_KEPT_BYTES])
        unreadable.problem = problem
        return unreadable


class DecodedRecord(NamedTuple):
    """A record of a batch; an unreadable one has no key, and UnreadableBytes as its value."""

    offset: int
    timestamp: int
    #: 0: set by the producer, 1: set by the broker.
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    #: aiokafka's records have a checksum, which this format has not.
    checksum: None = None


class _Malformed(Exception):
    """Bytes do not have the format of a record; the text says which."""


class _Batch(NamedTuple):
    """The fields of a batch's header that its records need."""

    base_offset: int
    attributes: int
    last_delta: int
    first_timestamp: int
    max_timestamp: int
    record_count: int

    @property
    def timestamp_type(self) -> int:
        return int(bool(self.attributes & LOG_APPEND_TIME))

    def unreadable(self, delta: int, data: bytes | memoryview, problem: str) -> DecodedRecord:
        value = UnreadableBytes.of(data, problem)
        return DecodedRecord(self.base_offset + delta, self.max_timestamp, self.timestamp_type, None, value, [])


def decode_batch(data: bytes | memoryview, limit: int = MAX_EXPANDED_BYTES) -> Iterator[DecodedRecord]:
    """Yield the records of a batch, in the order of their offsets.

    Offsets of records that cannot be taken apart have UnreadableBytes. Headers that cannot be read
    are left out, a name that is not UTF-8 gets backslash escapes: key and value count.

    Never raises an error for a batch with a complete header.
    """
    try:
        content = expand_batch(memoryview(data), limit)[HEADER.size :]
    except Unexpandable as exc:
        yield from unreadable_batch(data, str(exc))
    else:
        yield from _decode_records(_read_header(data), content)


def unreadable_batch(data: bytes | memoryview, problem: str) -> Iterator[DecodedRecord]:
    """Yield an unreadable record for each offset of a batch that cannot be expanded."""
    batch = _read_header(data)
    yield from _unreadable_offsets(batch, 0, batch.last_delta + 1, problem)


def _read_header(data: bytes | memoryview) -> _Batch:
    base, _, _, _, _, attributes, last_delta, first_timestamp, max_timestamp, *_, count = HEADER.unpack_from(data)
    return _Batch(base, attributes, last_delta, first_timestamp, max_timestamp, count)


def expand_batch(data: memoryview, limit: int = MAX_EXPANDED_BYTES) -> memoryview:
    """Return a batch without compression; its checksum is still that of the compressed batch.

    Raises Unexpandable for a damaged batch, and for one with too many bytes or records.
    """
    codec = data[_ATTRIBUTES_BYTE] & CODEC_MASK
    if not codec:
        return data
    (count,) = _COUNT.unpack_from(data, HEADER.size - _COUNT.size)
    if count > MAX_EXPANDED_RECORDS:
        raise Unexpandable(f"the batch has {count} compressed records, the limit is {MAX_EXPANDED_RECORDS}")
    expanded = bytearray(data[: HEADER.size])
    expanded[_ATTRIBUTES_BYTE] &= ~CODEC_MASK
    expanded += expand(codec, data[HEADER.size :], limit)
    return memoryview(expanded)


def _decode_records(batch: _Batch, content: memoryview) -> Iterator[DecodedRecord]:
    position, next_delta = 0, 0
    for number in range(batch.record_count):
        try:
            length, start = _read_varint(content, position)
            if not 0 < length <= len(content) - start:
                raise _Malformed(f"record {number} of the batch has the length {length}")
        except _Malformed as exc:
            # Nothing shows where the next record begins.
            remaining = batch.record_count - number
            yield from _unreadable_offsets(
                batch, next_delta, min(remaining, batch.last_delta + 1 - next_delta), str(exc)
            )
            return
        position = start + length
        record = content[start:position]
        try:
            delta, decoded = _decode_record(batch, record)
            if not next_delta <= delta <= batch.last_delta:
                raise _Malformed(f"the offset {batch.base_offset + delta} is not one of its batch")
        except _Malformed as exc:
            if next_delta > batch.last_delta:
                return  # the batch contains more records than offsets
            delta, decoded = next_delta, batch.unreadable(next_delta, record, str(exc))
        yield decoded
        next_delta = delta + 1


def _unreadable_offsets(batch: _Batch, first_delta: int, count: int, problem: str) -> Iterator[DecodedRecord]:
    """Yield an unreadable record for each of `count` offsets, up to a limit."""
    for number in range(min(count, MAX_UNREADABLE)):
        further = count - MAX_UNREADABLE if number == MAX_UNREADABLE - 1 else 0
        text = f"{problem}; so are the {further} offsets after it" if further > 0 else problem
        yield batch.unreadable(first_delta + number, b"", text)


def _decode_record(batch: _Batch, record: memoryview) -> tuple[int, DecodedRecord]:
    """Return the offset delta and the record. Raises _Malformed if key or value cannot be read."""
    _, position = _read_varint(record, 0)  # attributes, without a meaning so far
    timestamp_delta, position = _read_varint(record, position)
    delta, position = _read_varint(record, position)
    key, position = _read_bytes(record, position)
    value, position = _read_bytes(record, position)
    timestamp = batch.max_timestamp if batch.timestamp_type else _wrap(batch.first_timestamp + timestamp_delta)
    headers = _read_headers(record, position)
    return delta, DecodedRecord(batch.base_offset + delta, timestamp, batch.timestamp_type, key, value, headers)


def _read_headers(record: memoryview, position: int) -> list[tuple[str, bytes | None]]:
    """Return the headers of a record; those after the first unreadable one are left out."""
    headers: list[tuple[str, bytes | None]] = []
    try:
        count, position = _read_varint(record, position)
        for _ in range(count):
            name, position = _read_bytes(record, position)
            value, position = _read_bytes(record, position)
            headers.append(((name or b"").decode(errors="backslashreplace"), value))
    except _Malformed:
        pass
    return headers


def _read_bytes(data: memoryview, position: int) -> tuple[bytes | None, int]:
    """Return a part with its length before it, and the position after it; a negative length: None."""
    length, position = _read_varint(data, position)
    if length < 0:
        return None, position
    end = position + length
    if end > len(data):
        raise _Malformed(f"a part of the record has the length {length}, but only {len(data) - position} bytes follow")
    return bytes(data[position:end]), end


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return a number in zigzag encoding, and the position after it. Raises _Malformed."""
    number = shift = 0
    for at in range(position, min(position + _MAX_VARINT_BYTES, len(data))):
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return _wrap((number >> 1) ^ -(number & 1)), at + 1
        shift += 7
    raise _Malformed(f"there is no number at byte {position} of the record")


def _wrap(number: int) -> int:
    """Return the number that 64 bits with a sign contain after an overflow, as in Kafka."""
    return (number + _SIGN) % _INT64 - _SIGN
