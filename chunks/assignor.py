"""Faust's side of the assignment: the state that workers send, and the leader's assignment."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from faust.assignor.client_assignment import ClientAssignment, ClientMetadata
from faust.assignor.partition_assignor import PartitionAssignor
from faust.types import TP

from chunks.app import ChunkedApp
from chunks.assignment import PROTOCOL, ClientState, assign
from chunks.distribution import GroupDistribution
from chunks.group_metadata import Partitions, SubscriptionInfo, decode_data
from chunks.store import MAX_AGE_S

log = logging.getLogger(__name__)

Members = Mapping[str, ConsumerProtocolMemberMetadata]
#: Address of a worker -> changelog -> partitions.
Distribution = Mapping[str, Mapping[str, list[int]]]


class AssignmentInfo(ClientMetadata, serializer="json", include_metadata=False, namespace="@ChunksAssigned"):
    """The assignment that a worker receives: Faust's part, and additions to it.

    The field names are a wire format. An older leader does not send a newer field, and an older
    member ignores it.
    """

    #: The partitions to warm up.
    warming: Mapping[str, list[int]] = {}
    #: The standbys of all workers, also those that are not warm yet.
    standby_distribution: Distribution = {}
    #: Address -> its signature.
    signatures: Mapping[str, str] = {}


class Assignor(PartitionAssignor):
    """Replaces: an assignment that ignores which worker is warm.

    Faust's makes a worker with an empty disk an owner, and leaves some workers without partitions.
    """

    app: ChunkedApp
    #: The standbys that this worker warms up in order to take them over, as changelog partitions.
    warmup: frozenset[TP] = frozenset()
    #: The standbys of all workers; a worker without standbys is missing.
    standby_distribution: Distribution = {}
    _warmed: frozenset[TP] = frozenset()
    _topics: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The name of the protocol."""
        return PROTOCOL

    def report_warm(self) -> None:
        """Report in the next rebalance that the standbys to warm up are warm."""
        self._warmed = self.warmup

    # -- a member; called in the consumer's thread, between two assignments

    def metadata(self, topics: Collection[str]) -> ConsumerProtocolMemberMetadata:
        """Return this worker's state for the leader.

        Replaces: the assignment of all workers, sent by each of them.
        """
        self._topics = frozenset(topics)
        tables, oldest = self.app.tables, time.time() - MAX_AGE_S
        info = SubscriptionInfo(
            url=str(self._url),
            signature=tables.sign_address(str(self._url)),
            active=dict(self._assignment.actives),
            standby=dict(self._assignment.standbys),
            changelogs=sorted(tables.changelog_topics),
            local_offsets={
                topic: {number: local.offset for number, local in offsets.items() if local.at > oldest}
                for topic, offsets in tables.local_offsets.items()
            },
            ends=tables.changelog_ends,
            warmed=_by_topic(self._warmed),
        )
        return ConsumerProtocolMemberMetadata(self.version, list(topics), self._compress(msgspec.json.encode(info)))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Store the leader's assignment. Replaces: an assignment without partitions to warm up."""
        info, workers = self._decode_assignment(assignment)
        is_first = not self._assignment.actives and not self._assignment.standbys
        self._assignment = info.assignment
        self._active_tps, self._standby_tps = info.assignment.active_tps, info.assignment.standby_tps
        self._topic_groups = dict(info.topic_groups)
        trusted = workers.only(self.app.tables.is_trusted_address)
        self.changelog_distribution = {url: dict(partitions) for url, partitions in trusted.owners.items()}
        self.external_topic_distribution = info.external_topic_distribution
        self.standby_distribution = trusted.standbys
        self.warmup, self._warmed = frozenset(_tps(info.warming)), frozenset()
        if is_first and self.app.conf.consumer_group_instance_id is not None and self._has_changed(info.url):
            self.app.consumer.rejoin()

    def _decode_assignment(
        self, assignment: ConsumerProtocolMemberAssignment
    ) -> tuple[AssignmentInfo, GroupDistribution]:
        """Decode the leader's assignment, and the workers of the group in it; an unreadable one contains none."""
        try:
            workers = decode_data(assignment.user_data, GroupDistribution)
            info: AssignmentInfo = AssignmentInfo.loads(self._decompress(assignment.user_data))
        except Exception as exc:  # any bytes, so any error of the decoder
            if assignment.user_data or assignment.assignment:
                log.error("the assignment of the leader of the group cannot be read (%r): no partitions", exc)
            none = ClientAssignment(actives={}, standbys={})
            empty = AssignmentInfo(
                assignment=none, url="", changelog_distribution={}, external_topic_distribution={}, topic_groups={}
            )
            return empty, GroupDistribution({})
        return info, workers

    def _has_changed(self, url: str) -> bool:
        """Return whether this static member differs from the receiver of its old assignment."""
        offsets, changelogs = self.app.tables.local_offsets, self.app.tables.changelog_topics
        lacks_partition = any(
            tp.topic in changelogs and tp.partition not in offsets.get(tp.topic, {}) for tp in self._active_tps
        )
        return url != str(self._url) or self._topics != set(self._topic_groups) or lacks_partition

    # -- the leader

    def _perform_assignment(
        self, cluster: ClusterMetadata, members: Members
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Assign all partitions.

        Replaces: Faust's assignment, which ignores which worker is warm.
        """
        infos = self._decode_members(members)
        subscriptions = {member: list(members[member].subscription) for member in infos}
        changelogs = {topic for info in infos.values() for topic in info.changelogs}
        actives: dict[str, Partitions] = {member: {} for member in members}
        standbys: dict[str, Partitions] = {member: {} for member in members}
        warmup: dict[str, Partitions] = {member: {} for member in members}
        topic_groups: dict[str, int] = {}
        # Topics with the same readers and the same number of partitions are assigned together.
        copartitioned = self._get_copartitioned_groups(set().union(*subscriptions.values()), cluster, subscriptions)
        for number, (partitions, groups) in enumerate(sorted(copartitioned.items())):
            for topics in groups:
                topic_groups |= dict.fromkeys(topics, number)
                readers = {member: info for member, info in infos.items() if topics <= set(subscriptions[member])}
                states = _client_states(partitions, readers, topics, topics & changelogs)
                for member, target in assign(partitions, states, self.replicas).items():
                    actives[member] |= {topic: sorted(target.active) for topic in topics}
                    standbys[member] |= {topic: sorted(target.standby) for topic in topics & changelogs}
                    warmup[member] |= {topic: sorted(target.warmup) for topic in topics & changelogs if target.warmup}
        owners = {info.url: self._topics_filtered(actives[member], changelogs) for member, info in infos.items()}
        external = {
            info.url: self._non_table_topics_filtered(actives[member], changelogs) for member, info in infos.items()
        }
        # Every assignment contains all standbys, so empty parts are omitted.
        copies = {info.url: _without_empty(standbys[member]) for member, info in infos.items()}
        copies = {url: partitions for url, partitions in copies.items() if partitions}
        return {
            member: ConsumerProtocolMemberAssignment(
                self.version,
                [
                    (topic, [*active, *standbys[member].get(topic, [])])
                    for topic, active in sorted(actives[member].items())
                ],
                self._compress(
                    AssignmentInfo(
                        assignment=ClientAssignment(actives=actives[member], standbys=standbys[member]),
                        url=infos[member].url if member in infos else "",
                        changelog_distribution=owners, external_topic_distribution=external,
                        topic_groups=topic_groups, warming=warmup[member], standby_distribution=copies,
                        signatures={info.url: info.signature for info in infos.values() if info.signature},
                    ).dumps()
                ),
            )
            for member in members
        }  # fmt: skip

    def _decode_members(self, members: Members) -> dict[str, SubscriptionInfo]:
        """Return the state of each member that gets partitions; the others are logged."""
        infos = {}
        for member, metadata in members.items():
            try:
                info = decode_data(metadata.user_data, SubscriptionInfo)
            except ValueError as exc:
                log.warning("the member %s of the group gets no partitions: it is no worker (%s)", member, exc)
                continue
            if self.app.tables.is_trusted_address(info.url, info.signature):
                infos[member] = info
            else:
                log.warning("the member %s of the group gets no partitions: its address is not signed", member)
        return infos


def _client_states(
    partitions: int, infos: Mapping[str, SubscriptionInfo], topics: Iterable[str], changelogs: Iterable[str]
) -> dict[str, ClientState]:
    """Return the state of each member for topics that are assigned together."""
    furthest = {
        topic: [
            max(
                max(info.local_offsets.get(topic, {}).get(number, 0), info.ends.get(topic, {}).get(number, 0))
                for info in infos.values()
            )
            for number in range(partitions)
        ]
        for topic in changelogs
    }

    def lag(info: SubscriptionInfo, number: int) -> int:
        return sum(ends[number] - info.local_offsets.get(topic, {}).get(number, 0) for topic, ends in furthest.items())

    return {
        member: ClientState(
            active=_union(info.active, topics),
            standby=_union(info.standby, topics),
            lags={number: lag(info, number) for number in range(partitions)},
            warmed=_union(info.warmed, topics),
        )
        for member, info in infos.items()
    }


def _union(partitions: Mapping[str, list[int]], topics: Iterable[str]) -> set[int]:
    return {number for topic in topics for number in partitions.get(topic, ())}


def _without_empty(partitions: Partitions) -> Partitions:
    return {topic: numbers for topic, numbers in partitions.items() if numbers}


def _by_topic(tps: Iterable[TP]) -> Partitions:
    partitions: Partitions = {}
    for topic, number in sorted(tps):
        partitions.setdefault(topic, []).append(number)
    return partitions


def _tps(partitions: Mapping[str, list[int]]) -> Iterable[TP]:
    return (TP(topic, number) for topic, numbers in partitions.items() for number in numbers)
