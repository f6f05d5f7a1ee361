"""Which tables are lost, and where a source partition goes on, from the restored states of all its tables."""

from __future__ import annotations

from chunks.lost import Loss, RestoredState, plan_rebuild

WHOLE, LAGGING = RestoredState(True, 90), RestoredState(True, 40)
GONE, HALF = RestoredState(False, None), RestoredState(True, None)


def losses(states: dict, committed: int | None = 90, earliest: int = 0, end: int = 100) -> tuple[int, list[tuple]]:
    """The position, and what is lost: (table, reason, whether something of it is missing for good)."""
    plan = plan_rebuild(0, states, committed, earliest, end)
    assert plan.new == ()
    return plan.position, [(loss.table, loss.reason, loss.is_permanent) for loss in plan.losses]


def test_a_table_that_a_transaction_did_not_change_is_whole_though_its_position_lags():
    assert losses({"a": WHOLE, "b": LAGGING}) == (90, [])


def test_a_partition_that_was_never_read_begins_with_the_topic():
    assert plan_rebuild(0, {"a": GONE, "b": GONE}, None, 0, 0) == (0, 0, ("a", "b"), ())
    # What the topic has forgotten before anybody read it is missing.
    expired = (Loss("a", 3, "expired", True),)
    assert plan_rebuild(3, {"a": GONE}, None, 7, 9) == (7, 7, ("a",), expired)


def test_a_table_without_a_beginning_is_lost_though_it_has_newer_values():
    assert losses({"a": WHOLE, "b": GONE}) == (90, [("b", "emptied", False)])
    assert losses({"a": WHOLE, "b": RestoredState(False, 95)}) == (95, [("b", "emptied", False)])


def test_where_all_tables_are_lost_the_group_knows_how_far_they_were():
    assert losses({"a": GONE, "b": HALF}, 80) == (80, [("a", "emptied", False), ("b", "interrupted", False)])


def test_a_lost_table_may_have_been_further_than_those_that_are_whole():
    assert losses({"a": GONE, "b": LAGGING}, 95) == (95, [("a", "emptied", False)])
    assert losses({"a": WHOLE, "b": LAGGING}, 95) == (90, [])


def test_where_the_topic_is_lost_with_its_tables_they_begin_anew_and_that_is_said():
    assert losses({"a": GONE}, 80, end=5) == (0, [("a", "emptied", True)])
    # Only with them: a table that knows more than the topic is for a person to judge.
    assert plan_rebuild(0, {"a": WHOLE}, None, 0, 5).position == 90


def test_what_only_the_disk_has_is_written_down_again_and_a_lost_end_is_a_loss():
    assert losses({"a": WHOLE._replace(has_lost_start=True)}) == (90, [("a", "cut", False)])
    assert losses({"a": RestoredState(True, 70, has_lost_end=True)}, 80) == (80, [("a", "short", False)])


def test_what_the_topic_has_forgotten_is_missing_in_the_table_and_in_those_that_follow_from_it():
    totals = WHOLE._replace(derived_from="a")
    assert losses({"b": totals, "a": GONE}, earliest=10) == (90, [("a", "emptied", True), ("b", "derived", True)])
    assert losses({"b": totals, "a": GONE}) == (90, [("a", "emptied", False)])
    assert losses({"b": totals, "a": WHOLE._replace(has_lost_start=True)}, earliest=10) == (90, [("a", "cut", False)])
    # What follows from a whole table is rebuilt whole, whatever the topic has forgotten.
    assert losses({"b": GONE._replace(derived_from="a"), "a": WHOLE}, earliest=10) == (90, [("b", "emptied", False)])


def test_records_that_were_never_read_and_are_gone_are_said_to_be_missing_once_for_each_table():
    states = {"a": WHOLE, "b": GONE._replace(derived_from="a")}
    assert losses(states, earliest=95) == (90, [("a", "expired", True), ("b", "emptied", False)])


def test_a_copy_that_an_earlier_version_did_not_write_is_built_anew():
    copy = RestoredState(True, 40, derived_from="a", follows_base=True)
    assert losses({"a": WHOLE, "b": copy}) == (90, [("b", "behind", False)])
    assert losses({"a": WHOLE, "b": copy._replace(position=90)}) == (90, [])
    assert losses({"a": LAGGING, "b": copy._replace(position=90)}) == (90, [])
    assert losses({"a": WHOLE, "b": copy._replace(has_beginning=False)}) == (90, [("b", "emptied", False)])
    assert losses({"a": GONE, "b": copy}) == (90, [("a", "emptied", False)])
