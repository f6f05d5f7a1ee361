"""Assignments of a consumer group, encoded as the leader of a group of workers encodes them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

import msgspec
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from chunks import PROTOCOL

#: Address of a worker -> changelog -> partitions.
Workers = Mapping[str, Mapping[str, list[int]]]


def encode_assignment(owners: Workers, standbys: Workers | None = None) -> bytes:
    """An assignment as Kafka stores it."""
    return _assignment(owners, standbys or {}).encode()


def _assignment(owners: Workers, standbys: Workers) -> ConsumerProtocolMemberAssignment:
    content = {"changelog_distribution": owners, "standby_distribution": standbys}
    return ConsumerProtocolMemberAssignment(4, [], zlib.compress(msgspec.json.encode(content)))


def assignor_of(owners: Workers, standbys: Workers) -> type[AbstractPartitionAssignor]:
    """An assignor for a real consumer that assigns no partitions, and names these workers."""

    class NamingAssignor(AbstractPartitionAssignor):
        name = PROTOCOL
        version = 4

        @classmethod
        def assign(cls, cluster: object, members: Iterable[str]) -> dict[str, ConsumerProtocolMemberAssignment]:
            return {name: _assignment(owners, standbys) for name in members}

        @classmethod
        def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
            return ConsumerProtocolMemberMetadata(cls.version, list(topics), b"")

        @classmethod
        def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
            """Nothing is assigned."""

    return NamingAssignor
