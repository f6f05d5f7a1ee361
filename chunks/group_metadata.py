"""What the members of a consumer group tell each other, decoded as input: any client can join a group.

A member that sends something else gets no partitions, and ends no other member.
"""

from __future__ import annotations

import logging
import zlib
from typing import Annotated, Any, TypeVar

import msgspec
from aiokafka.coordinator.protocol import (
    ConsumerProtocol,
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Limit of the data of a member after decompression; an assignment of 128 workers and 256
#: partitions has some 100 KB.
MAX_BYTES = 4 * 2**20

Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/?#@]+/?\Z", max_length=300)]
Partition = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Offset = Annotated[int, msgspec.Meta(ge=0)]
Signature = Annotated[str, msgspec.Meta(max_length=200)]
#: Topic -> partitions, and topic -> partition -> offset.
Partitions = dict[str, list[Partition]]
Offsets = dict[str, dict[Partition, Offset]]


class SubscriptionInfo(msgspec.Struct, rename={"local_offsets": "held"}):
    """State that a worker sends when it joins: address, former partitions and offsets.

    The encoded names are a wire format. A new field needs a default: during an update both versions
    are in one group.
    """

    url: Url
    #: The signature of the address, see TableManager.sign_address.
    signature: Signature = ""
    active: Partitions = {}
    standby: Partitions = {}
    #: The changelogs among its topics.
    changelogs: list[str] = []
    #: Changelog -> partition -> the first record that is not on its disk, and the end offset at its
    #: last restore.
    local_offsets: Offsets = {}
    ends: Offsets = {}
    #: Changelog -> the partitions that it was assigned to warm up, and has.
    warmed: Partitions = {}


def decode_data(data: bytes | None, type_: type[T]) -> T:
    """Decode the compressed data of a member.

    Raises ValueError if it is not of this type, or exceeds MAX_BYTES.
    """
    if not data:
        raise ValueError("it contains no user data")
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(data, MAX_BYTES)
    except zlib.error as exc:
        raise ValueError(str(exc)) from None
    if not decompressor.eof:
        raise ValueError(f"its data is incomplete, or larger than {MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(content, type=type_)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise ValueError(str(exc)) from None


class _Tolerant:
    """Replaces: an exception for bytes that have another format, which ends the process that receives them."""

    level: int
    #: Who has sent the bytes, and the consequence.
    sender: str
    consequence: str

    @classmethod
    def decode(cls, data: Any) -> Any:
        try:
            return super().decode(data)  # type: ignore[misc]  # the next class is aiokafka's
        except Exception as exc:  # any bytes, so any error of the decoder
            log.log(cls.level, "%s has sent %d unreadable bytes (%r): %s", cls.sender, len(data), exc, cls.consequence)
            return cls(0, [], b"")  # type: ignore[call-arg]  # the next class is aiokafka's


class _Metadata(_Tolerant, ConsumerProtocolMemberMetadata):  # type: ignore[misc]  # aiokafka has no types
    level, sender, consequence = logging.WARNING, "a member of the group", "it gets nothing"


class _Assignment(_Tolerant, ConsumerProtocolMemberAssignment):  # type: ignore[misc]  # aiokafka has no types
    level, sender, consequence = logging.ERROR, "the leader of the group", "no partitions"


def tolerate_foreign_members() -> None:
    """Let aiokafka's coordinator decode metadata and assignments that no Lately has written."""
    ConsumerProtocol.METADATA = _Metadata
    ConsumerProtocol.ASSIGNMENT = _Assignment
