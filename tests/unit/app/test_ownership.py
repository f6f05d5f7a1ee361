"""Owners and standbys of partitions: of this group from its assignment, of other groups from the directory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.kafka.groups import GroupDescription
from app.ownership import PartitionOwnership
from app.services.group_directory import GroupDirectory
from app.settings import Settings
from chunks import PROTOCOL
from tests.kit.assignments import Workers, encode_assignment

CHANGELOGS = {"by_user": "app-by_user-changelog", "by_product": "app-by_product-changelog"}
OWN, OTHER, THIRD = "http://own:6066", "http://other:6066/", "http://third:6066/"


def ownership(table: str, owners: dict[str, list[int]], standbys: dict[str, list[int]]) -> PartitionOwnership:
    """A worker at OWN with the agent by_user; `table` has these owners and standbys."""
    agents = {name: name for name in CHANGELOGS}
    directory = GroupDirectory(Settings(), "app+by_user", ["by_product"], agents, CHANGELOGS, agents)
    workers: list[Workers] = [
        {url: {CHANGELOGS[table]: numbers} for url, numbers in group.items()} for group in (owners, standbys)
    ]
    if table == "by_product":
        description = GroupDescription(PROTOCOL, ["10.0.0.1 (faust)"], [encode_assignment(*workers)])
        directory.update({"app+by_product": description})
        workers = [{}, {}]
    assignor = SimpleNamespace(table_metadata=lambda _: workers[0], standby_distribution=workers[1])
    app = SimpleNamespace(
        address=OWN, assignor=assignor, changelogs=CHANGELOGS, group_directory=directory, tables={"by_user": None}
    )
    return PartitionOwnership(app)


@pytest.mark.parametrize("table", CHANGELOGS)
def test_owners_and_other_workers_with_a_standby_are_known_in_any_group(table: str):
    known = ownership(table, {OTHER: [0], THIRD: [1]}, {f"{OWN}/": [0], THIRD: [0], OTHER: [1]})
    assert [known.find_owner(table, number) for number in range(3)] == [OTHER, THIRD, None]
    assert [known.find_standbys(table, number) for number in range(3)] == [[THIRD], [OTHER], []]
    assert known.may_run(table)


def test_a_former_worker_of_another_group_at_this_address_is_no_owner():
    known = ownership("by_product", {f"{OWN}/": [0]}, {})
    assert (known.find_owner("by_product", 0), known.may_run("by_product")) == (None, True)
    assert not known.has_table("by_product")
