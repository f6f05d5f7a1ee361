"""File format of a dump: gzip of frames, each four bytes of length and a msgpack array that begins with its kind.

The order is: `head`; `pairs` of each table partition in the order of the keys; `records` in transit between two tables;
`end` with a digest of all previous frames.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

import msgspec

from app.errors import BadDump
from domain.codec import UNDECODABLE
from domain.digests import PartitionDigest
from domain.errors import LatelyError

FORMAT = 1
HEAD, PAIRS, RECORDS, END = "head", "pairs", "records", "end"

#: A frame ends when it reaches the first size; every frame is smaller than the second.
FRAME_BYTES, MAX_FRAME_BYTES = 2**20, 2**26
#: A higher level takes several times as long and saves a tenth.
COMPRESSION = 3

KeyValue = tuple[bytes, bytes]
#: Key, value and headers.
DumpRecord = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]


class PartitionSummary(msgspec.Struct, frozen=True):
    """A table partition up to the offset `position` of its source topic (exclusive); None if nothing was read yet."""

    table: str
    partition: int
    position: int | None
    keys: int
    digest: str


class DumpHead(msgspec.Struct, frozen=True):
    """Origin and content of a dump; `made_at` is RFC 3339."""

    format: int
    app_id: str
    partitions: int
    made_at: str
    parts: list[PartitionSummary]

    @property
    def keys(self) -> int:
        """Number of keys of all partitions."""
        return sum(part.keys for part in self.parts)

    def positions(self, table: str) -> dict[int, int]:
        """Partition -> position in the source topic."""
        return {part.partition: part.position or 0 for part in self.parts if part.table == table}


class PairsFrame(msgspec.Struct, frozen=True):
    """Keys and values of a table partition, in the order of the keys."""

    table: str
    partition: int
    pairs: list[KeyValue]


class RecordsFrame(msgspec.Struct, frozen=True):
    """Records of a topic partition; `topic` is an attribute name of app.topics.Topics."""

    topic: str
    partition: int
    records: list[DumpRecord]


class EndFrame(msgspec.Struct, frozen=True):
    """Digest of all previous frames."""

    digest: str


_KINDS = {HEAD: DumpHead, PAIRS: PairsFrame, RECORDS: RecordsFrame, END: EndFrame}
_NAMES = {kind: name for name, kind in _KINDS.items()}
Frame = DumpHead | PairsFrame | RecordsFrame | EndFrame
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw]).decode


class DumpWriter:
    """Writes frames to a dump."""

    def __init__(self, file: gzip.GzipFile, path: Path) -> None:
        self._file, self._path, self._hash = file, path, blake2b(digest_size=16)

    def put(self, frame: Frame) -> None:
        """Write one frame. Raises LatelyError if the file cannot be written."""
        content = _encode((_NAMES[type(frame)], frame))
        content = len(content).to_bytes(4, "big") + content
        self._hash.update(content)
        with _explain_write_errors(self._path):
            self._file.write(content)

    def end(self) -> None:
        """Write the last frame."""
        self.put(EndFrame(self._hash.hexdigest()))


@contextmanager
def open_dump(path: Path) -> Iterator[DumpWriter]:
    """Write a dump to a temporary file that only its owner can read, and rename it to `path` at the end.

    Raises LatelyError if the file cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    with _explain_write_errors(path):
        raw = open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))
    try:
        with raw:
            file = gzip.GzipFile("", "wb", COMPRESSION, raw)
            try:
                writer = DumpWriter(file, path)
                yield writer
                writer.end()
                with _explain_write_errors(path):
                    file.close()
                    raw.flush()
                    os.fsync(raw.fileno())
                    part.replace(path)
            finally:
                # After an error: the garbage collector would write into the closed file.
                with suppress(OSError):
                    file.close()
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _explain_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise LatelyError(
            f"{path} cannot be written ({exc.strerror}): free disk space, or choose another file"
        ) from None


def read_frames(path: Path) -> Iterator[Frame]:
    """Iterate over the frames, and check the digest at the end. Raises BadDump."""
    hash_ = blake2b(digest_size=16)
    try:
        with gzip.open(path, "rb") as file:
            while content := _read_frame(file):
                kind, raw = _decode(content[4:])
                frame = msgspec.msgpack.decode(raw, type=_KINDS[kind])
                if isinstance(frame, EndFrame):
                    if frame.digest != hash_.hexdigest() or file.read(1):
                        raise BadDump(f"{path} is damaged: its digest differs from its content; use another dump")
                    yield frame
                    return
                hash_.update(content)
                yield frame
        raise BadDump(f"{path} is cut off: its end is missing; use another dump")
    except FileNotFoundError:
        raise BadDump(f"the file {path} does not exist") from None
    except (EOFError, OSError, zlib.error, KeyError, ValueError, *UNDECODABLE) as exc:
        raise BadDump(f"{path} is damaged, or not a dump of tables ({exc}); use another dump") from None


def _read_frame(file: gzip.GzipFile) -> bytes:
    length = file.read(4)
    if not length:
        return b""
    size = int.from_bytes(length, "big")
    if size >= MAX_FRAME_BYTES or len(content := file.read(size)) < size:
        raise EOFError("a frame is incomplete")
    return length + content


def verify_dump(path: Path) -> DumpHead:
    """Read a whole dump, compare its content with its head, and return the head. Raises BadDump."""
    frames = read_frames(path)
    head = next(frames)
    if not isinstance(head, DumpHead) or head.format != FORMAT:
        raise BadDump(f"{path} was written by another version of Lately: restore it with that version")
    digests = {(part.table, part.partition): PartitionDigest(part.table) for part in head.parts}
    expected = list(digests)
    for frame in frames:
        if isinstance(frame, PairsFrame):
            while expected and expected[0] != (frame.table, frame.partition):
                expected.pop(0)
            if not expected:
                raise BadDump(f"{path} contains a partition that is missing in its head: use another dump")
            for pair in frame.pairs:
                digests[frame.table, frame.partition].add(*pair)
    for part in head.parts:
        digest = digests[part.table, part.partition]
        if (part.keys, part.digest) != (digest.keys, digest.hexdigest()):
            raise BadDump(
                f"{path}: partition {part.partition} of {part.table} differs from its digest; use another dump"
            )
    return head
