"""The file of a dump: gzip of frames, each four bytes of length and a msgpack array that begins with its kind.

`head` first, then for each partition of each table its `pairs` in the order of the keys, then the `records` that were
on their way between two tables, and last `end` with a digest of all frames before it.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import msgspec

from app.errors import BadDump
from domain.digests import Digest
from domain.errors import LatelyError

FORMAT = 1
HEAD, PAIRS, RECORDS, END = "head", "pairs", "records", "end"

#: A frame is ended when it has reached the first size; none has the second.
FRAME_BYTES, MAX_FRAME_BYTES = 2**20, 2**26
#: More costs several times as long and saves a tenth.
COMPRESSION = 3

Pair = tuple[bytes, bytes]
#: Key, value and headers.
Record = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]


class Part(msgspec.Struct, frozen=True):
    """A partition of a table: all below the offset `position` of its source topic, None: nothing was read yet."""

    table: str
    partition: int
    position: int | None
    keys: int
    digest: str


class Head(msgspec.Struct, frozen=True):
    """What a dump is of; `made_at` is RFC 3339."""

    format: int
    app_id: str
    partitions: int
    made_at: str
    parts: list[Part]

    @property
    def keys(self) -> int:
        """Keys in all."""
        return sum(one.keys for one in self.parts)

    def positions(self, table: str) -> dict[int, int]:
        """Partition -> the position of the source topic."""
        return {one.partition: one.position or 0 for one in self.parts if one.table == table}


class Pairs(msgspec.Struct, frozen=True):
    """Some keys and values of a partition of a table, in the order of the keys."""

    table: str
    partition: int
    pairs: list[Pair]


class Records(msgspec.Struct, frozen=True):
    """Some records of a partition of a topic, named as in app.topics.Topics."""

    topic: str
    partition: int
    records: list[Record]


class End(msgspec.Struct, frozen=True):
    """The digest of all frames before."""

    digest: str


_KINDS = {HEAD: Head, PAIRS: Pairs, RECORDS: Records, END: End}
_NAMES = {kind: name for name, kind in _KINDS.items()}
Frame = Head | Pairs | Records | End
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw]).decode


class Writer:
    """Writes frames."""

    def __init__(self, file: gzip.GzipFile, path: Path) -> None:
        self._file, self._path, self._hash = file, path, blake2b(digest_size=16)

    def put(self, frame: Frame) -> None:
        """Write one frame. Raises LatelyError when the file cannot be written."""
        content = _encode((_NAMES[type(frame)], frame))
        content = len(content).to_bytes(4, "big") + content
        self._hash.update(content)
        with _writable(self._path):
            self._file.write(content)

    def end(self) -> None:
        """Write the last one."""
        self.put(End(self._hash.hexdigest()))


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """A dump that is at `path` when all of it is written, and not before. Only its owner may read it.

    Raises LatelyError when the file cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    with _writable(path):
        raw = open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))
    try:
        with raw:
            file = gzip.GzipFile("", "wb", COMPRESSION, raw)
            writer = Writer(file, path)
            yield writer
            writer.end()
            with _writable(path):
                file.close()
                raw.flush()
                os.fsync(raw.fileno())
                part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise LatelyError(f"{path} cannot be written ({exc.strerror}): make room, or name another file") from None


def frames(path: Path) -> Iterator[Frame]:
    """All frames, whole or not at all: the digest at the end is checked. Raises BadDump."""
    hash_ = blake2b(digest_size=16)
    try:
        with gzip.open(path, "rb") as file:
            while content := _frame(file):
                kind, raw = _decode(content[4:])
                frame = msgspec.msgpack.decode(raw, type=_KINDS[kind])
                if isinstance(frame, End):
                    if frame.digest != hash_.hexdigest() or file.read(1):
                        raise BadDump(f"{path} is damaged: its digest is not that of its content; take another dump")
                    yield frame
                    return
                hash_.update(content)
                yield frame
        raise BadDump(f"{path} is cut off: its end is missing; take another dump")
    except FileNotFoundError:
        raise BadDump(f"there is no file {path}") from None
    except (EOFError, OSError, zlib.error, msgspec.DecodeError, UnicodeDecodeError, KeyError, ValueError) as exc:
        raise BadDump(f"{path} is damaged, or no dump of tables ({exc}); take another dump") from None


def _frame(file: BinaryIO) -> bytes:
    length = file.read(4)
    if not length:
        return b""
    size = int.from_bytes(length, "big")
    if size >= MAX_FRAME_BYTES or len(content := file.read(size)) < size:
        raise EOFError("a frame is not whole")
    return length + content


def verify(path: Path) -> Head:
    """Read all of a dump and compare it with what it says of itself. Raises BadDump."""
    found = frames(path)
    head = next(found)
    if not isinstance(head, Head) or head.format != FORMAT:
        raise BadDump(f"{path} was written by another version of Lately: restore it with that one")
    digests = {(one.table, one.partition): Digest(one.table) for one in head.parts}
    expected = list(digests)
    for frame in found:
        if isinstance(frame, Pairs):
            while expected and expected[0] != (frame.table, frame.partition):
                expected.pop(0)
            if not expected:
                raise BadDump(f"{path} has a partition that it does not name there: take another dump")
            for pair in frame.pairs:
                digests[frame.table, frame.partition].add(*pair)
    for one in head.parts:
        digest = digests[one.table, one.partition]
        if (one.keys, one.digest) != (digest.keys, digest.hexdigest()):
            raise BadDump(f"{path}: partition {one.partition} of {one.table} is not what the file says of it")
    return head
