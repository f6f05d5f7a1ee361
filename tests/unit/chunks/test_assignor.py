"""What workers tell their group of themselves, and what its leader hands out, over the wire and back."""

from __future__ import annotations

import json
import time
import zlib
from types import SimpleNamespace

import pytest
from aiokafka.coordinator.protocol import (
    ConsumerProtocol,
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)
from faust.types import TP

from chunks.assignor import Assignor
from chunks.group_metadata import MAX_BYTES, tolerate_foreign_members
from chunks.store import MAX_AGE_S, LocalOffset

TOPICS, CHANGELOG, PARTITIONS = ["orders", "app-by_user-changelog"], "app-by_user-changelog", 4
CLUSTER = SimpleNamespace(partitions_for_topic=lambda topic: set(range(PARTITIONS)))
MANY = 10**6


class Member:
    """A worker as its assignor sees it."""

    def __init__(
        self, url: str, offsets: dict[int, int], instance: str | None = None, age_s: float = 0, replicas: int = 0
    ) -> None:
        self.rejoins = 0
        self.tables = SimpleNamespace(
            changelog_topics={CHANGELOG},
            local_offsets={
                CHANGELOG: {number: LocalOffset(offset, time.time() - age_s) for number, offset in offsets.items()}
            },
            changelog_ends={},
            sign_address=lambda url: "",
            is_trusted_address=lambda url, signature: True,
        )
        conf = SimpleNamespace(canonical_url=url, consumer_group_instance_id=instance)
        consumer = SimpleNamespace(rejoin=self._rejoin)
        self.assignor = Assignor(SimpleNamespace(tables=self.tables, conf=conf, consumer=consumer), replicas)

    def _rejoin(self) -> None:
        self.rejoins += 1

    def has(self) -> tuple[list[int], list[int], list[int]]:
        """Its partitions of the table: active, copies, and of these the ones it makes to take over."""
        partitions = (self.assignor.assigned_actives(), self.assignor.assigned_standbys(), self.assignor.warmup)
        return tuple(sorted(tp.partition for tp in tps if tp.topic == CHANGELOG) for tps in partitions)


def rebalanced(*members: Member) -> dict[int, list[tuple[str, list[int]]]]:
    """Let the first of them be the leader, and give out what it decides."""
    metadata = {
        str(number): ConsumerProtocolMemberMetadata.decode(member.assignor.metadata(TOPICS).encode())
        for number, member in enumerate(members)
    }
    assigned = members[0].assignor._perform_assignment(CLUSTER, metadata)
    for number, member in enumerate(members):
        member.assignor.on_assignment(assigned[str(number)])
    return {number: assigned[str(number)].assignment for number in range(len(members))}


def test_a_worker_alone_gets_everything_and_all_know_where_it_is():
    member = Member("http://a", {})
    assigned = rebalanced(member)
    assert assigned[0] == [(CHANGELOG, [0, 1, 2, 3]), ("orders", [0, 1, 2, 3])]
    assert member.has() == ([0, 1, 2, 3], [], [])
    assert member.assignor.is_active(TP("orders", 3))
    assert member.assignor.table_metadata(CHANGELOG) == {"http://a": {CHANGELOG: [0, 1, 2, 3]}}


def test_the_names_on_the_wire_stay_what_they_were_so_that_versions_can_share_a_group():
    member = Member("http://a", {0: 5})
    sent = json.loads(member.assignor._decompress(member.assignor.metadata(TOPICS).user_data))
    assert sorted(sent) == ["active", "changelogs", "ends", "held", "signature", "standby", "url", "warmed"]
    assert sent["held"] == {CHANGELOG: {"0": 5}}
    answer = member.assignor._perform_assignment(CLUSTER, {"0": member.assignor.metadata(TOPICS)})["0"]
    assert sorted(json.loads(member.assignor._decompress(answer.user_data))) == [
        "assignment", "changelog_distribution", "external_topic_distribution", "signatures", "standby_distribution",
        "topic_groups", "url", "warming",
    ]  # fmt: skip


def test_every_worker_learns_who_has_which_standby_also_one_that_is_still_warming():
    first = Member("http://a", dict.fromkeys(range(4), MANY), replicas=1)
    second = Member("http://b", dict.fromkeys(range(4), MANY))
    rebalanced(first)
    assert first.assignor.standby_distribution == {}, "a worker alone has no standby"
    rebalanced(first, second)
    expected = {"http://a": {CHANGELOG: first.has()[1]}, "http://b": {CHANGELOG: second.has()[1]}}
    assert sorted(first.has()[1] + second.has()[1]) == [0, 1, 2, 3]
    assert first.assignor.standby_distribution == second.assignor.standby_distribution == expected
    cold = Member("http://c", {})
    rebalanced(first, second, cold)
    assert cold.has()[2] == first.assignor.standby_distribution["http://c"][CHANGELOG]


def test_an_assignment_of_an_older_leader_names_no_standbys_and_a_newer_field_is_ignored():
    member = Member("http://a", {})
    assigned = member.assignor._perform_assignment(CLUSTER, {"0": member.assignor.metadata(TOPICS)})["0"]
    info = json.loads(member.assignor._decompress(assigned.user_data))
    del info["standby_distribution"]
    info["of_a_newer_version"] = {"any": ["content"]}
    assigned.user_data = member.assignor._compress(json.dumps(info).encode())
    member.assignor.on_assignment(assigned)
    assert member.has()[0] == [0, 1, 2, 3]
    assert member.assignor.standby_distribution == {}


def test_one_that_joins_makes_copies_says_when_they_are_warm_and_is_believed_once():
    first, second = Member("http://a", dict.fromkeys(range(4), MANY)), Member("http://b", {})
    rebalanced(first)
    assigned = rebalanced(first, second)
    assert (first.has(), second.has()) == (([0, 1, 2, 3], [], []), ([], [0, 1], [0, 1]))
    assert assigned[1] == [(CHANGELOG, [0, 1]), ("orders", [])], "it reads the changelog, and no orders"
    second.assignor.report_warm()
    rebalanced(first, second)
    assert (first.has(), second.has()) == (([2, 3], [], []), ([0, 1], [], []))
    third = Member("http://c", {})
    rebalanced(first, third)
    assert third.has() == ([], [0, 1], [0, 1]) or third.has() == ([], [2, 3], [2, 3])


def test_what_is_on_the_disk_of_a_worker_counts_unless_it_is_too_old():
    fresh, old = (Member(name, dict.fromkeys(range(4), MANY)) for name in ("http://a", "http://b"))
    old.tables.local_offsets[CHANGELOG] = {
        number: LocalOffset(MANY, time.time() - MAX_AGE_S - 60) for number in range(4)
    }
    rebalanced(fresh)
    rebalanced(fresh, old)
    assert old.has() == ([], [0, 1], [0, 1])
    back = Member("http://c", {0: MANY - 10, 1: MANY - 10})
    rebalanced(fresh, back)
    assert back.has()[0] == [0, 1]


def test_an_owner_that_is_still_reading_is_no_reason_to_wait_for():
    reading, joins = Member("http://a", dict.fromkeys(range(4), 10)), Member("http://b", {})
    rebalanced(reading)
    reading.tables.changelog_ends = {CHANGELOG: dict.fromkeys(range(4), MANY)}
    rebalanced(reading, joins)
    assert joins.has()[::2] == ([0, 1], [])


def test_a_leader_without_a_table_still_shares_out_the_tables_of_others():
    leader, other = Member("http://a", {}), Member("http://b", dict.fromkeys(range(4), MANY))
    leader.tables.changelog_topics, leader.tables.local_offsets = set(), {}
    metadata = {
        "0": leader.assignor.metadata(["orders"]),
        "1": other.assignor.metadata(TOPICS),
    }
    assigned = leader.assignor._perform_assignment(CLUSTER, metadata)
    assert dict(assigned["1"].assignment)[CHANGELOG] == [0, 1, 2, 3]


def test_a_static_worker_that_is_not_what_it_was_asks_to_be_given_something_else():
    before = Member("http://a", {}, instance="one")
    rebalanced(before)
    kept = before.assignor._perform_assignment(CLUSTER, {"0": before.assignor.metadata(TOPICS)})["0"]
    for changed, member in {
        False: Member("http://a", dict.fromkeys(range(4), 5), "one"),
        True: Member("http://a", {}, "one"),
        "url": Member("http://b", dict.fromkeys(range(4), 5), "one"),
    }.items():
        member.assignor.metadata(TOPICS)
        member.assignor.on_assignment(kept)
        assert bool(member.rejoins) is bool(changed), changed


class Signing:
    """Signs addresses with a key, as TableManager does for an app."""

    def __init__(self, key: str) -> None:
        self.key = key

    def give_to(self, member: Member) -> Member:
        member.tables.sign_address = lambda url: f"{self.key} {url}"
        member.tables.is_trusted_address = lambda url, signature: signature == f"{self.key} {url}"
        return member


def bomb() -> bytes:
    return zlib.compress(b'{"url": "http://a", "x": "' + b"a" * (2 * MAX_BYTES) + b'"}', 9)


@pytest.mark.parametrize(
    "data",
    [
        None, b"", b"garbage", bomb(), zlib.compress(b"null"), zlib.compress(b'{"url": "http://u:p@b/"}'),
        zlib.compress(b'{"url": "http://b", "held": {"t": {"0": -1}}}'), zlib.compress(b"[" * 10**5),
    ],
    ids=["none", "empty", "garbage", "bomb", "null", "credentials", "negative", "deep"],
)  # fmt: skip
def test_a_member_that_is_no_worker_gets_nothing_and_disturbs_nobody(data, caplog):
    worker = Member("http://a", {})
    members = {
        "0": worker.assignor.metadata(TOPICS),
        "1": ConsumerProtocolMemberMetadata(0, ["other", *TOPICS], data),
    }
    assigned = worker.assignor._perform_assignment(CLUSTER, members)
    worker.assignor.on_assignment(assigned["0"])
    assert worker.has()[0] == [0, 1, 2, 3]
    assert assigned["1"].assignment == []
    assert "the member 1 of the group gets no partitions" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\xff", b"\x00\x00\x00\x00\x00\x05\x00\x01", b"\x00" * 3])
def test_bytes_that_are_no_metadata_end_no_leader(content):
    tolerate_foreign_members()
    metadata = ConsumerProtocol.METADATA.decode(content)
    assert (metadata.subscription, metadata.user_data) == ([], b"")
    assert ConsumerProtocol.ASSIGNMENT.decode(content).partitions() == []


def test_a_worker_whose_address_is_not_signed_gets_nothing_and_is_asked_nothing(caplog):
    ours, theirs = Signing("ours"), Signing("theirs")
    first, second = (ours.give_to(Member(url, {})) for url in ("http://a", "http://b"))
    stranger = theirs.give_to(Member("http://stranger", {}))
    rebalanced(first, second, stranger)
    assert sorted(first.has()[0] + second.has()[0]) == [0, 1, 2, 3]
    assert stranger.has()[0] == []
    assert "its address is not signed" in caplog.text
    assert set(first.assignor.changelog_distribution) == {"http://a", "http://b"}


def test_a_leader_that_is_no_worker_can_name_no_other_address():
    ours = Signing("ours")
    worker, leader = ours.give_to(Member("http://a", {})), Member("http://stranger", {})
    leader.tables.is_trusted_address = lambda url, signature: True
    rebalanced(leader, worker)
    assert set(leader.assignor.changelog_distribution) == {"http://a", "http://stranger"}
    assert set(worker.assignor.changelog_distribution) == {"http://a"}


def test_an_unreadable_assignment_contains_no_partitions(caplog):
    worker = Member("http://a", {})
    rebalanced(worker)
    worker.assignor.on_assignment(ConsumerProtocolMemberAssignment(0, [], b"garbage"))
    assert worker.has() == ([], [], [])
    assert "cannot be read" in caplog.text
