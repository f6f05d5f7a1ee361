"""Compressed bytes expand to the same as in aiokafka, or not at all; memory has a limit."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable

import aiokafka.codec
import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunks.decompress import GZIP, LZ4, SNAPPY, ZSTD, TooLarge, Unexpandable, expand

LIMIT = 2**20
CODECS = {
    GZIP: aiokafka.codec.gzip_encode,
    SNAPPY: aiokafka.codec.snappy_encode,
    LZ4: aiokafka.codec.lz4_encode,
    ZSTD: aiokafka.codec.zstd_encode,
}
BLOCK = "block"
each_codec = pytest.mark.parametrize(
    ("codec", "encode"), [*CODECS.items(), (SNAPPY, lambda data: bytes(cramjam.snappy.compress_raw(data)))]
)
Encode = Callable[[bytes], bytes]


@each_codec
@given(data=st.binary(max_size=2_000), times=st.integers(0, 400))
def test_bytes_up_to_the_limit_are_expanded(codec: int, encode: Encode, data: bytes, times: int):
    content = (data * times)[:LIMIT]
    assert bytes(expand(codec, memoryview(encode(content)), LIMIT)) == content


@each_codec
@pytest.mark.parametrize("size", [LIMIT + 1, 300 * LIMIT])
def test_one_byte_more_than_the_limit_is_too_large(codec: int, encode: Encode, size: int):
    bomb = encode(bytes(size))
    assert bytes(expand(codec, memoryview(encode(bytes(LIMIT))), LIMIT)) == bytes(LIMIT)
    tracemalloc.start()
    with pytest.raises(TooLarge):
        expand(codec, memoryview(bomb), LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * LIMIT


@each_codec
@given(data=st.binary(max_size=300), changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255))))
def test_damaged_bytes_raise_one_kind_of_error(codec: int, encode: Encode, data: bytes, changes: list):
    damaged = bytearray(encode(data * 3))
    for position, value in changes:
        damaged[position % len(damaged)] = value
    try:
        assert len(expand(codec, memoryview(damaged), LIMIT)) <= LIMIT
    except Unexpandable:
        pass


@given(codec=st.integers(0, 7), data=st.binary(max_size=300))
def test_garbage_raises_one_kind_of_error(codec: int, data: bytes):
    try:
        expand(codec, memoryview(data), LIMIT)
    except Unexpandable:
        pass


def test_all_members_of_a_gzip_stream_are_expanded_and_zeros_after_them_ignored():
    stream = gzip.compress(b"one") + gzip.compress(b"two") + bytes(7)
    assert expand(GZIP, memoryview(stream)) == aiokafka.codec.gzip_decode(stream) == b"onetwo"
    with pytest.raises(Unexpandable, match="incomplete"):
        expand(GZIP, memoryview(stream[:-10]))
