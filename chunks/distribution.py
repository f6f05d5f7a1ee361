"""The owners and standbys of all partitions of a group, from the assignment of any of its members.

A process outside the group reads the assignment from Kafka. Its bytes are input: their size and
their content are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from chunks.group_metadata import Partition, Signature, Url, decode_data


class GroupDistribution(
    msgspec.Struct, frozen=True, rename={"owners": "changelog_distribution", "standbys": "standby_distribution"}
):
    """The workers of a group: address -> changelog -> partitions.

    The encoded names are those of chunks.assignor.AssignmentInfo. A leader of an older version
    sends no standbys and no signatures.
    """

    owners: Mapping[Url, Mapping[str, list[Partition]]]
    standbys: Mapping[Url, Mapping[str, list[Partition]]] = {}
    #: Address -> its signature.
    signatures: Mapping[Url, Signature] = {}

    def only(self, is_trusted: Callable[[str, str], bool]) -> GroupDistribution:
        """Return the part of the workers for whose address and signature `is_trusted` returns true."""
        trusted = {url for url in {*self.owners, *self.standbys} if is_trusted(url, self.signatures.get(url, ""))}
        return GroupDistribution(
            {url: partitions for url, partitions in self.owners.items() if url in trusted},
            {url: partitions for url, partitions in self.standbys.items() if url in trusted},
            self.signatures,
        )


def decode_distribution(assignment: bytes) -> GroupDistribution:
    """Decode the assignment of a member, as Kafka stores it.

    Raises ValueError if `assignment` was not encoded by chunks.assignor, or is too large.
    """
    return decode_data(ConsumerProtocolMemberAssignment.decode(assignment).user_data, GroupDistribution)
