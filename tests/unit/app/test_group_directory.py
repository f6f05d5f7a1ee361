"""The owners and standbys of other groups, from what Kafka says of the groups of an app."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kafka.groups import GroupDescription
from app.services.group_directory import MAX_ASSIGNMENTS, GroupDirectory
from app.settings import Settings
from chunks import PROTOCOL
from tests.kit.assignments import encode_assignment

SOURCE_TOPICS = {"by_user": "orders", "by_product": "partials", "similar": "pairs", "refunds": "orders"}
WRITERS = {"by_user": "by_user", "product_partials": "by_user", "by_product": "by_product", "similar": "similar",
           "refunds": "refunds"}  # fmt: skip
CHANGELOGS = {table: f"app-{table}-changelog" for table in WRITERS}
A, B = "http://a:6066/", "http://b:6066/"


def assignment(owners: dict, standbys: dict | None = None) -> bytes:
    """An assignment as Kafka stores it; `owners` and `standbys` map an address to tables and partitions."""
    by_changelog = [
        {url: {CHANGELOGS[table]: numbers for table, numbers in tables.items()} for url, tables in workers.items()}
        for workers in (owners, standbys or {})
    ]
    return encode_assignment(*by_changelog)


def group(*assignments: bytes, workers: int = 1, protocol: str = PROTOCOL) -> GroupDescription:
    return GroupDescription(protocol, [f"10.0.0.{number} (faust)" for number in range(workers)], [*assignments])


def directory(missing: Iterable[str] = ("by_product", "similar")) -> GroupDirectory:
    """The directory of a process with the agent by_user."""
    return GroupDirectory(Settings(), "app+by_user", [*missing], SOURCE_TOPICS, CHANGELOGS, WRITERS)


PRODUCTS = assignment({A: {"by_product": [0, 2]}, B: {"by_product": [1, 3]}}, {A: {"by_product": [1]}})


def test_owners_and_standbys_are_those_of_the_group_of_the_agent():
    known = directory()
    known.update({"app+by_product": group(PRODUCTS, PRODUCTS, workers=2)})
    assert [known.find_owner("by_product", number) for number in range(5)] == [A, B, A, B, None]
    assert [known.find_standbys("by_product", number) for number in range(2)] == [[], [A]]
    assert (known.may_run("by_product"), known.may_run("similar"), known.may_run("unknown")) == (True, False, False)
    assert known.find_owner("similar", 0) is None


def test_a_table_may_run_anywhere_until_kafka_has_answered():
    known = directory()
    assert (known.may_run("by_product"), known.find_owner("by_product", 0)) == (True, None)
    known.update({})
    assert not known.may_run("by_product")
    assert not directory(missing=()).may_run("by_product"), "a process with all agents does not ask Kafka"


def test_during_a_rebalance_the_former_owners_remain_and_without_members_they_are_gone():
    known = directory()
    known.update({"app+by_product": group(PRODUCTS)})
    known.update({"app+by_product": group(workers=2)})
    assert (known.find_owner("by_product", 1), known.may_run("by_product")) == (B, True)
    known.update({"app+by_product": group(workers=0)})
    assert (known.find_owner("by_product", 1), known.may_run("by_product")) == (None, False)
    known.update({"app+by_product": group(workers=1)})
    assert (known.find_owner("by_product", 1), known.may_run("by_product")) == (None, True)


def test_a_group_is_not_believed_about_the_tables_of_other_agents_or_about_more_partitions():
    known = directory()
    known.update({
        "app+similar": group(assignment({A: {"by_product": [0], "by_user": [0], "similar": [0, 4]}})),
        "app+by_user": group(assignment({B: {"by_user": [0], "similar": [1]}})),
    })  # fmt: skip
    assert known.find_owner("similar", 0) == A
    for table, number in (("by_product", 0), ("by_user", 0), ("similar", 4), ("similar", 1)):
        assert known.find_owner(table, number) is None


def test_the_group_of_all_agents_has_the_tables_of_the_default_agents():
    known = GroupDirectory(Settings(), "app+refunds", ["by_user", "by_product"], SOURCE_TOPICS, CHANGELOGS, WRITERS)
    known.update({"app": group(assignment({A: {"by_user": [0], "product_partials": [0], "refunds": [0]}}))})
    assert known.find_owner("by_user", 0) == known.find_owner("product_partials", 0) == A
    assert known.find_owner("refunds", 0) is None


def test_an_unreadable_assignment_is_ignored_with_one_line_until_it_was_readable_again(
    caplog: pytest.LogCaptureFixture,
):
    known = directory()
    known.update({"app+by_product": group(PRODUCTS)})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            known.update({"app+by_product": group(b"\x00damaged")})
        assert known.find_owner("by_product", 1) == B, "the last readable one remains"
        known.update({"app+by_product": group(PRODUCTS)})
        known.update({"app+by_product": group(PRODUCTS, protocol="faust")})
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert all("the assignment of the group app+by_product is ignored" in line for line in lines)
    assert "'faust'" in lines[1]


def test_one_readable_assignment_is_enough_but_not_all_are_tried():
    known = directory()
    known.update({"app+by_product": group(*[b"\x00"] * (MAX_ASSIGNMENTS - 1), PRODUCTS)})
    assert known.find_owner("by_product", 1) == B
    late = directory()
    late.update({"app+by_product": group(*[b"\x00"] * MAX_ASSIGNMENTS, PRODUCTS)})
    assert late.find_owner("by_product", 1) is None


@given(st.lists(st.binary(max_size=60) | st.just(PRODUCTS), max_size=4), st.sampled_from(["", PROTOCOL, "range"]))
def test_any_bytes_in_kafka_leave_a_known_owner_or_none(assignments: list[bytes], protocol: str):
    known = directory()
    known.update({"app+by_product": group(*assignments, protocol=protocol)})
    assert known.find_owner("by_product", 1) in (None, B)
    assert known.may_run("by_product")
