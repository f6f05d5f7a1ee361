"""Faust's side of the assignment: what a worker tells the group of itself, and what the group's leader makes of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import cast

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from faust.assignor.client_assignment import ClientAssignment, ClientMetadata
from faust.assignor.partition_assignor import PartitionAssignor
from faust.types import TP

from chunks.assignment import PROTOCOL, ClientState, assign
from chunks.store import MAX_AGE_S

Members = Mapping[str, ConsumerProtocolMemberMetadata]
#: Topic -> partitions, or what is known of each of them.
Partitions = dict[str, list[int]]
Offsets = dict[str, dict[int, int]]


class SubscriptionInfo(msgspec.Struct, rename={"local_offsets": "held"}):
    """What a worker tells of itself when it joins: where it answers, what it had, and how far it has read what.

    Whatever a later version adds needs a default: during an update both are in one group.
    """

    url: str
    active: Partitions = {}
    standby: Partitions = {}
    #: The changelogs among its topics.
    changelogs: list[str] = []
    #: Changelog -> partition -> the next record that is not on its disk, and where it saw the changelog end.
    local_offsets: Offsets = {}
    ends: Offsets = {}
    #: Changelog -> the partitions of which it was told to make copies, and has.
    warmed: Partitions = {}


class AssignmentInfo(ClientMetadata, serializer="json", include_metadata=False, namespace="@ChunksAssigned"):
    """What a worker is told: Faust's part, and the copies after which it is to ask for another rebalance."""

    warming: Mapping[str, list[int]] = cast(Mapping[str, list[int]], {})


class Assignor(PartitionAssignor):
    """Replaces: an owner that has nothing yet while others have it all, and workers that are left without anything."""

    #: Of the changelogs that this worker has copies of: those that it makes in order to take over.
    warmup: frozenset[TP] = frozenset()
    _warmed: frozenset[TP] = frozenset()
    _topics: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The protocol's name."""
        return PROTOCOL

    def report_warm(self) -> None:
        """The copies that this worker was to make are there: tell so with the next rebalance."""
        self._warmed = self.warmup

    # -- a member; called in the consumer's thread, between two assignments

    def metadata(self, topics: Collection[str]) -> ConsumerProtocolMemberMetadata:
        """What this worker tells of itself."""
        self._topics = frozenset(topics)
        tables, oldest = self._table_manager, time.time() - MAX_AGE_S
        told = SubscriptionInfo(
            url=str(self._url),
            active=dict(self._assignment.actives),
            standby=dict(self._assignment.standbys),
            changelogs=sorted(tables.changelog_topics),
            local_offsets={
                topic: {number: held.offset for number, held in found.items() if held.at > oldest}
                for topic, found in tables.local_offsets.items()
            },
            ends=tables.changelog_ends,
            warmed=_by_topic(self._warmed),
        )
        return ConsumerProtocolMemberMetadata(self.version, list(topics), self._compress(msgspec.json.encode(told)))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Take what the leader has made of it."""
        assigned = AssignmentInfo.loads(self._decompress(assignment.user_data))
        first = not self._assignment.actives and not self._assignment.standbys
        self._assignment = assigned.assignment
        self._active_tps, self._standby_tps = assigned.assignment.active_tps, assigned.assignment.standby_tps
        self._topic_groups = dict(assigned.topic_groups)
        self.changelog_distribution = assigned.changelog_distribution
        self.external_topic_distribution = assigned.external_topic_distribution
        self.warmup, self._warmed = frozenset(_tps(assigned.warming)), frozenset()
        if first and self.app.conf.consumer_group_instance_id is not None and self._is_another(assigned.url):
            self.app.consumer.rejoin()

    def _is_another(self, url: str) -> bool:
        """Whether a static member, which gets what it had without having been asked, is not any more what it was."""
        held, changelogs = self._table_manager.local_offsets, self._table_manager.changelog_topics
        bare = any(tp.topic in changelogs and tp.partition not in held.get(tp.topic, {}) for tp in self._active_tps)
        return url != str(self._url) or self._topics != set(self._topic_groups) or bare

    # -- the leader

    def _perform_assignment(
        self, cluster: ClusterMetadata, members: Members
    ) -> dict[str, ConsumerProtocolMemberAssignment]:  # fmt: skip
        told = {
            member: msgspec.json.decode(self._decompress(one.user_data), type=SubscriptionInfo)
            for member, one in members.items()
        }
        subscriptions = {member: set(one.subscription) for member, one in members.items()}
        changelogs = {topic for one in told.values() for topic in one.changelogs}
        given = {member: ClientAssignment(actives={}, standbys={}) for member in members}
        warming: dict[str, Partitions] = {member: {} for member in members}
        groups: dict[str, int] = {}
        # Topics that the same workers read and that have as many partitions are given out together.
        found = self._get_copartitioned_groups(set().union(*subscriptions.values()), cluster, subscriptions)
        for number, (partitions, together) in enumerate(sorted(found.items())):
            for topics in together:
                groups |= dict.fromkeys(topics, number)
                readers = {member: one for member, one in told.items() if topics <= subscriptions[member]}
                holdings = _client_states(partitions, readers, topics, topics & changelogs)
                for member, share in assign(partitions, holdings, self.replicas).items():
                    given[member].actives |= {topic: sorted(share.active) for topic in topics}
                    given[member].standbys |= {topic: sorted(share.standby) for topic in topics & changelogs}
                    warming[member] |= {topic: sorted(share.warmup) for topic in topics & changelogs if share.warmup}
        owners = {told[member].url: self._topics_filtered(one.actives, changelogs) for member, one in given.items()}
        others = {
            told[member].url: self._non_table_topics_filtered(one.actives, changelogs) for member, one in given.items()
        }
        return {
            member: ConsumerProtocolMemberAssignment(
                self.version,
                [(topic, [*active, *one.standbys.get(topic, [])]) for topic, active in sorted(one.actives.items())],
                self._compress(
                    AssignmentInfo(
                        assignment=one, url=told[member].url, changelog_distribution=owners,
                        external_topic_distribution=others, topic_groups=groups, warming=warming[member],
                    ).dumps()
                ),
            )
            for member, one in given.items()
        }  # fmt: skip


def _client_states(
    partitions: int, told: Mapping[str, SubscriptionInfo], topics: Iterable[str], changelogs: Iterable[str]
) -> dict[str, ClientState]:
    """What each member has of topics that are given out together."""
    furthest = {
        topic: [
            max(max(one.local_offsets.get(topic, {}).get(number, 0), one.ends.get(topic, {}).get(number, 0))
                for one in told.values())
            for number in range(partitions)
        ]
        for topic in changelogs
    }  # fmt: skip

    def behind(one: SubscriptionInfo, number: int) -> int:
        return sum(ends[number] - one.local_offsets.get(topic, {}).get(number, 0) for topic, ends in furthest.items())

    return {
        member: ClientState(
            active=_any(one.active, topics),
            standby=_any(one.standby, topics),
            lags={number: behind(one, number) for number in range(partitions)},
            warmed=_any(one.warmed, topics),
        )
        for member, one in told.items()
    }


def _any(found: Mapping[str, list[int]], topics: Iterable[str]) -> set[int]:
    return {number for topic in topics for number in found.get(topic, ())}


def _by_topic(tps: Iterable[TP]) -> Partitions:
    found: Partitions = {}
    for topic, number in sorted(tps):
        found.setdefault(topic, []).append(number)
    return found


def _tps(found: Mapping[str, list[int]]) -> Iterable[TP]:
    return (TP(topic, number) for topic, many in found.items() for number in many)
