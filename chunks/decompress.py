"""Bounded decompression of record batches.

A client can write a batch of 30 KB that expands to 1 GB. The broker stores it, because it limits
compressed bytes only, and aiokafka expands it completely before it looks at a record. So the limit
must be checked while the batch is expanded.
"""

from __future__ import annotations

import mmap
import threading
import zlib
from collections.abc import Callable

import cramjam

#: Limit of an expanded batch. Kafka's default limit of a compressed batch is 1 MiB, and events
#: compress to a tenth or a twentieth of their size: honest batches stay far below.
MAX_EXPANDED_BYTES = 64 * 2**20

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4

#: A scratch buffer that was used beyond this is given back to the operating system.
_KEPT_BYTES = 4 * 2**20
#: The header of a stream of Snappy blocks, which Java's library writes: magic bytes and two versions.
_XERIAL_HEADER = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
#: The bytes that zlib expands at once.
_PIECE_BYTES = 2**20
#: The parameter of zlib for the format of gzip.
_GZIP_WINDOW = 31

_DecompressInto = Callable[[memoryview, mmap.mmap], int]
Expanded = bytes | bytearray | memoryview


class Unexpandable(Exception):
    """A batch cannot be expanded; the text is the cause."""


class TooLarge(Unexpandable):
    """A batch expands to more bytes than the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the batch expands to more than {limit} bytes")


class _Scratch(threading.local):
    """A buffer of each thread; the operating system provides its pages when they are written."""

    buffer: mmap.mmap | None = None


_scratch = _Scratch()


def expand(codec: int, data: memoryview, limit: int = MAX_EXPANDED_BYTES) -> Expanded:
    """Return the expanded `data`, which may be valid only until the next call in this thread.

    Raises TooLarge if it has more than `limit` bytes, Unexpandable if it is damaged.
    """
    try:
        if codec == GZIP:
            return _expand_gzip(data, limit)
        if codec == SNAPPY:
            return _expand_snappy(data, limit)
        if codec == LZ4:
            return _expand_into_scratch(cramjam.lz4.decompress_into, data, limit)
        if codec == ZSTD:
            return _expand_into_scratch(cramjam.zstd.decompress_into, data, limit)
    except (cramjam.DecompressionError, zlib.error) as exc:
        raise Unexpandable(f"the batch cannot be expanded: {exc}") from None
    raise Unexpandable(f"the batch has the unknown compression {codec}")


def _expand_into_scratch(decompress_into: _DecompressInto, data: memoryview, limit: int) -> memoryview:
    if _scratch.buffer is None or len(_scratch.buffer) != limit:
        _scratch.buffer = mmap.mmap(-1, limit)
    buffer, size = _scratch.buffer, limit
    try:
        size = decompress_into(data, buffer)
    except cramjam.DecompressionError as exc:
        # The text of Rust's standard library for a full buffer.
        if "failed to write whole buffer" in str(exc):
            raise TooLarge(limit) from None
        raise
    finally:
        if size > _KEPT_BYTES:
            _scratch.buffer = None
    return memoryview(buffer)[:size]


def _expand_gzip(data: memoryview, limit: int) -> bytes:
    """Expand all members of a gzip stream; zero bytes may follow the last one."""
    parts: list[bytes] = []
    size = 0
    rest: bytes | memoryview = data
    while rest:
        member = zlib.decompressobj(_GZIP_WINDOW)
        while not member.eof:
            parts.append(member.decompress(rest, _PIECE_BYTES))
            rest = member.unconsumed_tail
            size += len(parts[-1])
            if size > limit:
                raise TooLarge(limit)
            if not parts[-1] and not member.eof:
                raise Unexpandable("the batch cannot be expanded: its gzip stream is incomplete")
        rest = member.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _expand_snappy(data: memoryview, limit: int) -> Expanded:
    if data[: len(_XERIAL_HEADER)] != _XERIAL_HEADER:
        return _expand_snappy_block(data, limit, limit)
    parts: list[bytes] = []
    size, position = 0, len(_XERIAL_HEADER)
    while position < len(data):
        start = position + 4
        position = start + int.from_bytes(data[position:start], "big", signed=True)
        if not start <= position <= len(data):
            raise Unexpandable("the batch cannot be expanded: it has a block of Snappy with a wrong length")
        parts.append(_expand_snappy_block(data[start:position], limit - size, limit))
        size += len(parts[-1])
    return b"".join(parts)


def _expand_snappy_block(block: memoryview, room: int, limit: int) -> bytes:
    # The block begins with its expanded size, so it is not expanded at all if it is too large.
    if cramjam.snappy.decompress_raw_len(block) > room:
        raise TooLarge(limit)
    return bytes(cramjam.snappy.decompress_raw(block))
