"""Which agents a process runs, and in which group."""

from __future__ import annotations

import pytest

from app.errors import BadSetting
from app.kafka.groups import by_default, chosen, group, owner

READERS = {"by_user": "orders", "by_product": "partials", "similar": "pairs", "refunds": "orders"}


def test_without_a_name_all_run_and_of_those_that_read_one_topic_the_first():
    assert chosen(READERS, "") == chosen(READERS, " , ") == by_default(READERS) == ("by_user", "by_product", "similar")


def test_those_that_are_named_run_in_the_order_of_the_flow():
    assert chosen(READERS, "similar, by_user,similar") == ("by_user", "similar")
    assert chosen(READERS, "refunds") == ("refunds",)


def test_an_unknown_name_is_refused_and_the_known_ones_are_said():
    with pytest.raises(
        BadSetting, match="no agent 'by_usr'; there are by_user, by_product, similar, refunds"
    ) as raised:
        chosen(READERS, "by_product,by_usr")
    assert raised.value.exit_code == 2


def test_two_that_read_one_topic_are_refused():
    with pytest.raises(BadSetting, match="by_user and refunds both read orders"):
        chosen(READERS, "refunds,by_user")


def test_the_group_of_all_is_the_apps_name_however_all_are_named():
    assert group("lately", chosen(READERS, ""), READERS) == "lately"
    assert group("lately", chosen(READERS, "similar,by_product,by_user"), READERS) == "lately"


def test_every_other_choice_has_a_group_of_its_own_that_no_app_can_be_called():
    assert group("lately", chosen(READERS, "similar,by_user"), READERS) == "lately+by_user+similar"
    assert group("lately", ("refunds",), READERS) == "lately+refunds"


def test_a_table_is_written_by_the_agent_of_its_name_else_by_the_first_that_reads_its_topic():
    assert owner("refunds", "orders", READERS) == "refunds"
    assert owner("product_partials", "orders", READERS) == "by_user"
    assert owner("other", "nothing", READERS) is None
