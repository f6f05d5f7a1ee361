"""Foreign records in the topics between two agents become dead letters; those of another version stop the worker."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from faust.types import TP

from chunks import Chunk, FetchedRecord, RecordRange, UnreadableBytes
from domain.co_purchases import decode_changes, decode_delta
from domain.dead_letters import DAMAGED
from domain.errors import UnknownFormat
from domain.totals import Totals, decode_partial, encode_partial
from tables.unreadable import decode_record


def chunk_of(*records: FetchedRecord) -> Chunk:
    task: Any = None
    return Chunk(TP("app-product-partials", 2), RecordRange(0, len(records), list(records)), task)


def reasons(chunk: Chunk) -> list[str]:
    return [dict(headers)["__lately.errors.exception"].decode() for *_, headers in chunk.outputs]


@pytest.mark.parametrize("decode", [decode_partial, decode_changes, decode_delta])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "undecodable"),
        (b"\xc1", "undecodable"),
        (b"{}", "undecodable"),
        (b"\x91" * 5_000, "undecodable"),
        (UnreadableBytes.of(b"\x91\x01", "cut"), DAMAGED),
    ],
)
def test_what_cannot_be_decoded_is_a_dead_letter(decode, value: bytes | None, reason: str):
    chunk = chunk_of((0, b"k", value))
    assert decode_record(chunk, chunk.records[0], decode, "by_product") is None
    assert reasons(chunk) == [reason]
    assert decode_record(chunk, chunk.records[0], decode, "by_product", bury=False) is None
    assert len(chunk.outputs) == 1


def test_a_record_of_another_version_is_not_given_up():
    value = msgspec.msgpack.encode([99, "tea", 0, 7, 1, "1"])
    chunk = chunk_of((0, b"k", value))
    with pytest.raises(UnknownFormat, match="format 99"):
        decode_record(chunk, chunk.records[0], decode_partial, "by_product")
    assert chunk.outputs == []


def test_a_readable_record_is_decoded():
    value = encode_partial("tea", 1, 7, Totals())
    chunk = chunk_of((0, b"k", value))
    partial = decode_record(chunk, chunk.records[0], decode_partial, "by_product")
    assert partial is not None
    assert (partial.product_name, chunk.outputs) == ("tea", [])
