"""Owners and standbys of a group, as a process outside it reads them: from any bytes that Kafka may contain."""

from __future__ import annotations

import json
import zlib

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from faust.assignor.client_assignment import ClientAssignment
from hypothesis import given
from hypothesis import strategies as st

from chunks.assignor import AssignmentInfo
from chunks.distribution import GroupDistribution, decode_distribution
from chunks.group_metadata import MAX_BYTES

OWNERS = {"http://a:6066": {"app-by_user-changelog": [0, 2]}, "http://[::1]:6067": {"app-by_user-changelog": [1, 3]}}
STANDBYS = {"http://a:6066": {"app-by_user-changelog": [1]}}

topics = st.text(max_size=20)
partitions = st.lists(st.integers(0, 2**31 - 1), max_size=5)
urls = st.builds("http://{}:{}".format, st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True), st.integers(1, 65535))
distributions = st.dictionaries(urls, st.dictionaries(topics, partitions, max_size=3), max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


def encode(user_data: bytes) -> bytes:
    return ConsumerProtocolMemberAssignment(4, [("orders", [0, 1])], user_data).encode()


def encode_json(content: object) -> bytes:
    return encode(zlib.compress(json.dumps(content).encode()))


def leader_assignment(owners: dict, standbys: dict) -> bytes:
    """The assignment that a leader sends to a member."""
    info = AssignmentInfo(
        assignment=ClientAssignment(actives={"orders": [0]}, standbys={}), url="http://a:6066",
        changelog_distribution=owners, external_topic_distribution={}, topic_groups={"orders": 0}, warming={},
        standby_distribution=standbys,
    )  # fmt: skip
    return encode(zlib.compress(info.dumps()))


@given(distributions, distributions)
def test_the_distribution_that_a_leader_sends_is_read_from_the_assignment_of_any_member(owners: dict, standbys: dict):
    assert decode_distribution(leader_assignment(owners, standbys)) == GroupDistribution(owners, standbys)


def test_an_assignment_of_an_older_leader_has_no_standbys():
    assert decode_distribution(encode_json({"changelog_distribution": OWNERS})) == GroupDistribution(OWNERS, {})


@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(encode)
    | st.binary(max_size=100).map(zlib.compress).map(encode)
)
def test_any_other_bytes_are_a_value_error(assignment: bytes):
    with pytest.raises(ValueError):  # noqa: PT011 - the text depends on the bytes
        decode_distribution(assignment)


@given(
    json_values | st.fixed_dictionaries({"changelog_distribution": json_values, "standby_distribution": json_values})
)
def test_any_other_json_is_a_value_error_or_contains_no_worker(content: object):
    try:
        distribution = decode_distribution(encode_json(content))
    except ValueError:
        return
    assert not [topics for topics in (*distribution.owners.values(), *distribution.standbys.values()) if topics]


@given(st.data())
def test_a_damaged_assignment_is_a_value_error_or_names_only_valid_workers(data: st.DataObject):
    assignment = bytearray(leader_assignment(OWNERS, STANDBYS))
    for _ in range(data.draw(st.integers(1, 3))):
        assignment[data.draw(st.integers(0, len(assignment) - 1))] = data.draw(st.integers(0, 255))
    try:
        distribution = decode_distribution(bytes(assignment[: data.draw(st.integers(0, len(assignment)))]))
    except ValueError:
        return
    assert distribution == GroupDistribution(OWNERS, STANDBYS), "the checksum of the content finds any damage"


@pytest.mark.parametrize(
    "owners",
    [
        {"ftp://a:21": {}},
        {"http://": {}},
        {"http://user:secret@a:6066": {}},
        {"http://a:6066/admin?all": {}},
        {"http://a:6066\r\nHost: b": {}},
        {"http://a:6066\n": {}},
        {f"http://{'a' * 300}:6066": {}},
        {"http://a:6066": {"topic": [-1]}},
        {"http://a:6066": {"topic": [2**31]}},
        {"http://a:6066": {"topic": [True]}},
        {"http://a:6066": {"topic": ["0"]}},
        {"http://a:6066": {"topic": 0}},
        [],
    ],
)
def test_an_address_or_a_partition_that_no_worker_can_have_is_refused(owners: object):
    for field in ({"changelog_distribution": owners}, {"changelog_distribution": {}, "standby_distribution": owners}):
        with pytest.raises(ValueError, match=r"^Expected "):
            decode_distribution(encode_json(field))


def test_an_assignment_that_expands_to_more_than_the_limit_is_refused_before_it_is_expanded():
    bomb = zlib.compress(b'{"changelog_distribution": {}, "x": "' + b"a" * (64 * MAX_BYTES) + b'"}', 9)
    with pytest.raises(ValueError, match=f"larger than {MAX_BYTES} bytes"):
        decode_distribution(encode(bomb))


def test_deeply_nested_json_is_refused():
    with pytest.raises(ValueError, match="recursion"):
        decode_distribution(encode(zlib.compress(b'{"x":' + b"[" * 10**6)))
