"""A consumer reads every readable record of a fetch, in order, and no batch ends it or takes its memory."""

from __future__ import annotations

import logging
import struct
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from chunks.batches import MAX_FETCH_BYTES, BatchReader, is_abort_marker, read_tolerantly
from chunks.fetch import _iterate_records
from chunks.record_batch import HEADER, UnreadableBytes
from tests.kit.batches import CODECS, CRC_AT, NONE, PLAIN_NAME, ZSTD, build, sealed, with_bad_names, with_content

TOPIC = TopicPartition("orders", 0)
parts = st.none() | st.binary(max_size=30)
contents = st.lists(st.tuples(parts, parts, st.just([])), min_size=1, max_size=9)


@pytest.fixture(autouse=True, scope="module")
def tolerant() -> None:
    read_tolerantly()


def fetched(data: bytes, start: int = 0) -> fetcher.PartitionRecords:
    return fetcher.PartitionRecords(
        TOPIC, fetcher.MemoryRecords(data), [], start, None, None, True, fetcher.READ_COMMITTED
    )


def log_of(*contents: list) -> bytes:
    """Batches of records, one after the other; each is compressed in another way."""
    data, base = b"", 0
    for number, records in enumerate(contents):
        data += build(records, CODECS[number % len(CODECS)], base)
        base += len(records)
    return data


def control(key: bytes | None) -> bytes:
    """A batch as a broker writes it at the end of a transaction."""
    batch = bytearray(build([(key, b"", [])]))
    batch[struct.calcsize(">qiibIb")] |= 0x30
    struct.pack_into(">q", batch, struct.calcsize(">qiibIhiqq"), 1)
    return sealed(bytes(batch))


@given(st.lists(contents, max_size=6), st.integers(0, 20), st.integers(0, 60))
def test_valid_batches_are_split_and_read_as_by_aiokafka(batches: list, start: int, cut: int):
    data = log_of(*batches)
    data = data[: len(data) - cut]
    start = min(start, len(batches[0]) - 1) if batches else 0  # a fetch contains no batch before its first offset
    expected, theirs = [], MemoryRecords(data)
    while theirs.has_next():
        expected += [(one.offset, one.key, one.value) for one in theirs.next_batch() if one.offset >= start]
    assert list(_iterate_records(fetched(data, start))) == expected
    assert [(one.offset, one.key, one.value) for one in fetched(data, start)] == expected
    assert fetcher.MemoryRecords(data).size_in_bytes() == theirs.size_in_bytes()


def test_a_name_that_is_no_text_costs_no_record(caplog):
    data = build([(b"a", b"1", [])], ZSTD)
    data += with_bad_names(build([(b"b", b"2", [(PLAIN_NAME, b"x")]), (b"c", b"3", [])], base=1))
    data += build([(b"d", b"4", [])], base=3)
    assert list(_iterate_records(fetched(data))) == [(0, b"a", b"1"), (1, b"b", b"2"), (2, b"c", b"3"), (3, b"d", b"4")]
    assert [one.key for one in fetched(data)] == [b"a", b"b", b"c", b"d"]
    with caplog.at_level(logging.WARNING):
        assert [one.headers for one in fetched(data, 1)] == [((r"\xff\xfe\x80", b"x"),), (), ()]
    assert "orders[0], 2 records from offset 1 on: some headers cannot be read" in caplog.text


def test_an_unreadable_record_is_marked_in_chunks_and_skipped_with_a_line_elsewhere(caplog):
    good = build([(b"k", b"v", [])])[HEADER.size :]
    data = with_content(build([(b"k", b"v", [])] * 3), good + b"\xff" * 20) + build([(b"last", None, [])], base=3)
    records = list(_iterate_records(fetched(data)))
    assert [(offset, key) for offset, key, _ in records] == [(0, b"k"), (1, None), (2, None), (3, b"last")]
    assert [isinstance(value, UnreadableBytes) for *_, value in records] == [False, True, True, False]
    caplog.clear()
    partition = fetched(data)
    assert [one.offset for one in partition] == [0, 3]
    assert partition.next_fetch_offset == 4
    assert len([line for line in caplog.messages if "2 cannot be read" in line]) == 1


def test_the_rest_of_a_fetch_that_expands_far_is_fetched_again():
    large = [(b"k", bytes(MAX_FETCH_BYTES), [])]
    data = build(large, ZSTD) + build([(b"l", b"v", [])], base=1)
    partition = fetched(data)
    assert [offset for offset, *_ in _iterate_records(partition)] == [0]
    assert partition.next_fetch_offset == 1
    assert not partition._records.has_next()
    again = fetched(data[len(build(large, ZSTD)) :], 1)
    assert [offset for offset, *_ in _iterate_records(again)] == [1]


def test_a_wrong_checksum_is_an_error_because_no_client_wrote_it():
    data = bytearray(build([(b"k", b"v", [])]))
    data[CRC_AT] ^= 1
    with pytest.raises(CorruptRecordException):
        list(_iterate_records(fetched(bytes(data))))


@given(st.binary(max_size=200))
def test_no_bytes_raise_another_error(data: bytes):
    try:
        list(_iterate_records(fetched(data)))
    except CorruptRecordException:
        pass


@pytest.mark.parametrize("length", [-1, -(2**31), 0, 5])
def test_a_batch_with_a_wrong_length_does_not_stop_the_reader_in_a_loop(length: int):
    reader = BatchReader(struct.pack(">qi", 0, length) + bytes(60))
    assert reader.has_next()
    with pytest.raises(CorruptRecordException):
        reader.next_batch()


@pytest.mark.parametrize(
    ("key", "is_abort"),
    [
        (b"\0\0\0\0", True),
        (b"\0\0\0\1", False),
        (b"\0\1\0\0", True),
        (b"\0\0\0\7", False),
        (b"\0", False),
        (None, False),
    ],
)
def test_markers_of_any_kind_are_skipped(key: bytes | None, is_abort: bool):
    assert is_abort_marker(BatchReader(control(key)).next_batch()) is is_abort
    partition = fetched(control(key) + build([(b"k", b"v", [])], base=1))
    assert list(_iterate_records(partition)) == [(1, b"k", b"v")]


def test_a_marker_that_compaction_has_emptied_is_skipped():
    batch = bytearray(control(b"\0\0\0\0")[: HEADER.size])
    struct.pack_into(">i", batch, HEADER.size - 4, 0)
    empty = sealed(bytes(batch))
    assert list(_iterate_records(fetched(empty + build([(b"k", b"v", [])], base=1)))) == [(1, b"k", b"v")]
    assert [one.key for one in fetched(empty + build([(b"k", b"v", [])], base=1))] == [b"k"]


def test_an_empty_batch_and_null_parts_are_records_like_others():
    batch = bytearray(build([(b"k", b"v", [])])[: HEADER.size])
    struct.pack_into(">i", batch, HEADER.size - 4, 0)
    data = sealed(bytes(batch)) + build([(None, None, [])], NONE, base=1, timestamp=-1)
    assert list(_iterate_records(fetched(data))) == [(1, None, None)]
    assert [(one.offset, one.timestamp, one.key) for one in fetched(data)] == [(1, -1, None)]


def test_a_damaged_batch_of_an_old_format_is_one_unreadable_record():
    class Broken:
        base_offset, next_offset = 4, 5

        def __iter__(self) -> None:
            raise ValueError("broken")

    reader = BatchReader(b"old")
    [(offset, key, value)] = reader.tuples(Broken(), TOPIC, 0)
    assert (offset, key, bytes(value or b"")) == (4, None, b"")
    assert list(reader.records(SimpleNamespace(base_offset=4, next_offset=5), TOPIC)) == []
