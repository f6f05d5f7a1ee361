"""The tolerant decoder yields what aiokafka yields for valid batches, and survives all others.

The files in `batches/` are batches in hexadecimal, each with a fault that clients have written or could write.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import example, given
from hypothesis import strategies as st

from chunks.record_batch import (
    HEADER,
    MAX_EXPANDED_RECORDS,
    MAX_UNREADABLE,
    DecodedRecord,
    UnreadableBytes,
    decode_batch,
)
from tests.kit.batches import CODECS, GZIP, NONE, PLAIN_NAME, ZSTD, build, with_bad_names, with_content

CORPUS = sorted((Path(__file__).parent / "batches").glob("*.hex"))
LIMIT = 2**16

parts = st.none() | st.binary(max_size=40)
headers = st.lists(st.tuples(st.text(max_size=8), parts), max_size=3)
records = st.lists(st.tuples(parts, parts, headers), min_size=1, max_size=20)
batches = st.builds(
    build, records, st.sampled_from(CODECS), base=st.integers(0, 2**62), timestamp=st.integers(0, 2**62)
)  # fmt: skip


def fields(record: DecodedRecord) -> tuple:
    return (record.offset, record.timestamp, record.timestamp_type, record.key, record.value, list(record.headers))


def problems(data: bytes) -> list[str]:
    return [record.value.problem for record in decode_batch(data, LIMIT) if isinstance(record.value, UnreadableBytes)]


def check_any(data: bytes) -> None:
    """What holds for every batch: offsets of the batch, each once and in order, and key and value are bytes."""
    base, *_, last_delta = HEADER.unpack_from(data)[:7]
    decoded = list(decode_batch(data, LIMIT))
    offsets = [record.offset for record in decoded]
    assert offsets == sorted(set(offsets))
    assert all(base <= offset <= base + last_delta for offset in offsets)
    for record in decoded:
        assert record.key is None or type(record.key) is bytes
        assert not isinstance(record.value, UnreadableBytes) or (record.key is None and record.value.problem)


@given(batches)
def test_valid_batches_are_decoded_as_by_aiokafka(data: bytes):
    assert [fields(record) for record in decode_batch(data)] == [fields(record) for record in DefaultRecordBatch(data)]


@given(batches, st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 255)), max_size=5), st.integers(0, 50))
def test_no_change_of_a_batch_raises_an_error(data: bytes, changes: list[tuple[int, int]], cut: int):
    damaged = bytearray(data)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    check_any(bytes(damaged[: max(HEADER.size, len(damaged) - cut)]))


@given(st.binary(min_size=HEADER.size, max_size=400))
@example(bytes(HEADER.size))
@example(b"\xff" * 200)
@example(b"\x7f" * 200)
def test_no_bytes_raise_an_error(data: bytes):
    check_any(data)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_known_faults_cost_no_other_record(path: Path):
    """Each file contains three records with the keys a, b and c; the fault is in the record b or after it."""
    data = bytes.fromhex(path.read_text())
    check_any(data)
    decoded = list(decode_batch(data, LIMIT))
    assert [record.offset for record in decoded] == [0, 1, 2]
    assert (decoded[0].key, decoded[0].value) == (b"a", b"first")


def test_the_corpus_is_there():
    assert len(CORPUS) >= 6


def test_a_name_that_is_no_text_costs_neither_the_record_nor_its_other_headers():
    data = with_bad_names(build([(b"k", b"v", [("x", b"1"), (PLAIN_NAME, b"2"), ("y", None)]), (b"l", b"w", [])]))
    first, second = decode_batch(data)
    assert (first.key, first.value) == (b"k", b"v")
    assert first.headers == [("x", b"1"), (r"\xff\xfe\x80", b"2"), ("y", None)]
    assert (second.offset, second.key, second.value) == (1, b"l", b"w")


def test_a_record_that_cannot_be_taken_apart_is_replaced_and_the_next_one_is_read():
    good = build([(b"k", b"v", [])])[HEADER.size :]
    bad = b"\x0e" + b"\x00\x00\x00\x7e" + b"x" * 3  # its key would be longer than the record
    third = good[:3] + b"\x04" + good[4:]
    data = with_content(build([(b"k", b"v", [])] * 3, base=7), good + bad + third)
    decoded = list(decode_batch(data))
    assert [(record.offset, record.key) for record in decoded] == [(7, b"k"), (8, None), (9, b"k")]
    assert isinstance(decoded[1].value, UnreadableBytes)
    assert bytes(decoded[1].value) == bad[1:]
    assert "only 3 bytes follow" in decoded[1].value.problem


def test_without_a_length_the_remaining_offsets_are_unreadable():
    good = build([(b"k", b"v", [])])[HEADER.size :]
    data = with_content(build([(b"k", b"v", [])] * 4), good + b"\xff" * 20)
    assert [record.key for record in decode_batch(data)] == [b"k", None, None, None]


@pytest.mark.parametrize("codec", [GZIP, ZSTD])
def test_a_batch_that_expands_too_far_has_an_unreadable_record_for_each_offset(codec: int):
    data = build([(b"k", bytes(LIMIT), [])] * 3, codec)
    assert problems(data) == [f"the batch expands to more than {LIMIT} bytes"] * 3


def test_a_batch_with_too_many_compressed_records_is_not_expanded():
    data = bytearray(build([(b"k", bytes(100), [])] * 3, GZIP))
    struct.pack_into(">i", data, HEADER.size - 4, MAX_EXPANDED_RECORDS + 1)
    assert all("compressed records" in problem for problem in problems(bytes(data)))


def test_the_last_of_many_unreadable_offsets_stands_for_the_others():
    data = bytearray(build([(b"k", b"v", [])]))
    struct.pack_into(">i", data, HEADER.size - 4, 2**31 - 1)
    struct.pack_into(">i", data, struct.calcsize(">qiibIh"), 2**31 - 2)
    found = problems(bytes(data))
    assert len(found) == MAX_UNREADABLE
    assert f"so are the {2**31 - 2 - MAX_UNREADABLE} offsets after it" in found[-1]
    assert "so are" not in found[0]


def test_unreadable_records_keep_only_the_first_bytes():
    assert len(UnreadableBytes.of(bytes(2**21), "long")) == 2**20


def test_timestamps_of_minus_one_are_kept():
    assert [record.timestamp for record in decode_batch(build([(b"k", None, [])], NONE, timestamp=-1))] == [-1]
