"""The agents that a process runs, and its consumer group."""

from __future__ import annotations

import pytest

from app.errors import BadSetting
from app.kafka.groups import agents_of_group, app_of_group, default_agents, group_name, select_agents, writer_agent

READERS = {"by_user": "orders", "by_product": "partials", "similar": "pairs", "refunds": "orders"}


def test_without_a_name_all_run_and_of_those_that_read_one_topic_the_first():
    assert (
        select_agents(READERS, "")
        == select_agents(READERS, " , ")
        == default_agents(READERS)
        == ("by_user", "by_product", "similar")
    )


def test_those_that_are_named_run_in_the_order_of_the_flow():
    assert select_agents(READERS, "similar, by_user,similar") == ("by_user", "similar")
    assert select_agents(READERS, "refunds") == ("refunds",)


def test_an_unknown_name_is_refused_and_the_valid_ones_are_listed():
    with pytest.raises(
        BadSetting, match="no agent 'by_usr'; there are by_user, by_product, similar, refunds"
    ) as raised:
        select_agents(READERS, "by_product,by_usr")
    assert raised.value.exit_code == 2


def test_two_that_read_one_topic_are_refused():
    with pytest.raises(BadSetting, match="by_user and refunds both read orders"):
        select_agents(READERS, "refunds,by_user")


def test_the_group_of_all_is_the_apps_name_however_all_are_named():
    assert group_name("lately", select_agents(READERS, ""), READERS) == "lately"
    assert group_name("lately", select_agents(READERS, "similar,by_product,by_user"), READERS) == "lately"


def test_every_other_choice_has_a_group_of_its_own_that_no_app_can_be_called():
    assert group_name("lately", select_agents(READERS, "similar,by_user"), READERS) == "lately+by_user+similar"
    assert group_name("lately", ("refunds",), READERS) == "lately+refunds"


@pytest.mark.parametrize("setting", ["", "by_user", "similar,by_product", "refunds"])
def test_the_name_of_a_group_names_its_agents(setting: str):
    agents = select_agents(READERS, setting)
    assert agents_of_group(group_name("lately", agents, READERS), READERS) == agents


def test_a_table_is_written_by_the_agent_of_its_name_else_by_the_first_that_reads_its_topic():
    assert writer_agent("refunds", "orders", READERS) == "refunds"
    assert writer_agent("product_partials", "orders", READERS) == "by_user"
    assert writer_agent("other", "nothing", READERS) is None


@pytest.mark.parametrize(
    ("group", "agents"),
    [("shop", {"by_user", "similar"}), ("shop+by_user", {"by_user"}), ("shop+refunds", set()), ("shop-2", set())],
)
def test_the_name_of_a_group_tells_which_agents_it_runs(group, agents):
    running = agents_of_group(group, READERS) if app_of_group(group) == "shop" else ()
    assert {agent for agent in ("by_user", "similar") if agent in running} == agents
