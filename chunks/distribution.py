"""The owners and standbys of all partitions of a group, from the assignment of any of its members.

A process outside the group reads the assignment from Kafka. Its bytes are input: their size and
their content are checked.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Annotated

import msgspec
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

#: Limit of an assignment after decompression; with 128 workers and 256 partitions it has some 100 KB.
MAX_BYTES = 4 * 2**20

_Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/?#@]+/?\Z", max_length=300)]
_Partition = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class GroupDistribution(
    msgspec.Struct, frozen=True, rename={"owners": "changelog_distribution", "standbys": "standby_distribution"}
):
    """The workers of a group: address -> changelog -> partitions.

    The encoded names are those of chunks.assignor.AssignmentInfo. A leader of an older version
    sends no standbys.
    """

    owners: Mapping[_Url, Mapping[str, list[_Partition]]]
    standbys: Mapping[_Url, Mapping[str, list[_Partition]]] = {}


_decode = msgspec.json.Decoder(GroupDistribution).decode


def decode_distribution(assignment: bytes) -> GroupDistribution:
    """Decode the assignment of a member, as Kafka stores it.

    Raises ValueError if `assignment` was not encoded by chunks.assignor, or exceeds MAX_BYTES.
    """
    user_data = ConsumerProtocolMemberAssignment.decode(assignment).user_data
    if not user_data:
        raise ValueError("it contains no user data")
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(user_data, MAX_BYTES)
    except zlib.error as exc:
        raise ValueError(str(exc)) from None
    if not decompressor.eof:
        raise ValueError(f"its data is incomplete, or larger than {MAX_BYTES} bytes")
    try:
        return _decode(content)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise ValueError(str(exc)) from None
