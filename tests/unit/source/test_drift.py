"""What is wrong with the triggers and the shop's table, from what was read of them."""

from __future__ import annotations

import pytest

from source.columns import ColumnProblem
from source.drift import Capture, CaptureProblem, created_by_event, find_problems
from source.installed_triggers import InstalledTrigger

COLUMNS = ("order_id", "product_name", "user_id", "price", "ordered_at")
KEY = ("order_id", "product_name")


def body(event: str, time_type: str = "datetime", columns: tuple = COLUMNS, key: tuple = KEY) -> str:
    """A body in the form that Lately creates."""
    qualifier = "OLD" if event == "delete" else "NEW"
    values = [f"{qualifier}.`{name}`" for name in columns if name != "ordered_at"]
    time = f"{qualifier}.`ordered_at`"
    values.append(f"UNIX_TIMESTAMP({time}) * 1000000" if time_type == "timestamp" else time)
    where = " AND ".join(f"`orders`.`{name}` = OLD.`{name}`" for name in key) if event == "update" else "1"
    return f"IF {where} THEN INSERT INTO `box` VALUES ({', '.join(values)}); END IF"


def trigger(event: str, text: str | None = None, table: str = "orders", suffix: str = "") -> InstalledTrigger:
    """An installed trigger; without a text with the body that Lately creates."""
    return InstalledTrigger("shop", f"box_{event}{suffix}", table, event, "app@%", text or body(event), f"at {event}")


def capture(**changes: object) -> Capture:
    """A capture without a problem, but for the changes."""
    events = ("insert", "update", "delete")
    whole = Capture(
        table="orders",
        columns=frozenset(COLUMNS),
        column_problems=(),
        engine="InnoDB",
        key=KEY,
        time_type="datetime",
        expected={event: body(event) for event in events},
        triggers=tuple(map(trigger, events)),
    )
    return whole._replace(**changes)


def only(found: Capture) -> CaptureProblem:
    """The only problem."""
    (problem,) = find_problems(found)
    return problem


def test_a_capture_as_it_was_set_up_has_no_problem():
    assert find_problems(capture()) == []
    assert created_by_event(capture()) == {event: f"at {event}" for event in ("insert", "update", "delete")}


def test_triggers_with_other_names_are_as_good():
    renamed = tuple(trigger(event, suffix="_gho") for event in ("insert", "update", "delete"))
    assert find_problems(capture(triggers=renamed)) == []


def test_a_missing_trigger_loses_changes():
    problem = only(capture(triggers=(trigger("insert"), trigger("update"))))
    assert (problem.kind, problem.is_critical, problem.loses_changes) == ("trigger-missing", True, True)
    assert "has no trigger for DELETE" in problem.message
    assert "lately source setup" in problem.message


def test_triggers_that_moved_with_a_renamed_table_are_named():
    moved = tuple(trigger(event, table="_orders_del") for event in ("insert", "update", "delete"))
    problem = only(capture(triggers=moved))
    assert problem.kind == "trigger-missing"
    assert "(they are on _orders_del)" in problem.message


def test_two_triggers_for_one_event_capture_twice():
    problem = only(capture(triggers=(*capture().triggers, trigger("insert", suffix="_gho"))))
    assert (problem.kind, problem.is_critical) == ("trigger-doubled", False)
    assert "box_insert, box_insert_gho" in problem.message


def test_triggers_of_a_copy_of_the_table_are_reported():
    problem = only(capture(triggers=(*capture().triggers, trigger("insert", table="_orders_new"))))
    assert (problem.kind, problem.is_critical) == ("trigger-elsewhere", False)
    assert "_orders_new" in problem.message


def test_a_column_that_a_trigger_uses_and_the_table_lacks_makes_the_shop_fail():
    problem = only(capture(columns=frozenset(COLUMNS) - {"price"}, expected={}))
    assert (problem.kind, problem.is_critical, problem.loses_changes) == ("column-missing", True, False)
    assert "every INSERT and UPDATE and DELETE of the shop fails with error 1054" in problem.message


@pytest.mark.parametrize(("before", "after"), [("datetime", "timestamp"), ("timestamp", "datetime")])
def test_another_type_of_the_time_makes_times_wrong(before, after):
    events = ("insert", "update", "delete")
    problem = only(
        capture(
            time_type=after,
            expected={event: body(event, after) for event in events},
            triggers=tuple(trigger(event, body(event, before)) for event in events),
        )
    )
    assert (problem.kind, problem.loses_changes) == ("column-type", True)
    assert f"was {before.upper()} and is {after.upper()} now" in problem.message


def test_another_primary_key_is_reported():
    problem = only(capture(key=("id",), expected={**capture().expected, "update": body("update", key=("id",))}))
    assert (problem.kind, problem.loses_changes) == ("primary-key", True)
    assert "was order_id, product_name and is id now" in problem.message


def test_a_new_column_that_could_be_published_is_a_hint():
    columns = (*COLUMNS, "category")
    expected = {event: body(event, columns=columns) for event in ("insert", "update", "delete")}
    problem = only(capture(columns=frozenset(columns), expected=expected))
    assert (problem.kind, problem.is_critical) == ("column-added", False)
    assert "category" in problem.message


def test_triggers_of_another_version_are_a_hint():
    problem = only(capture(expected={**capture().expected, "insert": f"{body('insert')} -- newer"}))
    assert (problem.kind, problem.is_critical, problem.loses_changes) == ("trigger-outdated", False, False)


def test_a_table_an_outbox_or_a_definer_that_is_gone_is_reported_with_what_it_does_to_the_shop():
    assert [p.kind for p in find_problems(capture(columns=frozenset(), triggers=(), expected={}))] == ["table"]
    problem = only(capture(first_version=None))
    assert problem.kind == "outbox-missing"
    assert "every INSERT and UPDATE and DELETE of the shop fails with error 1146" in problem.message
    problem = only(capture(missing_definers=frozenset({"app@%"})))
    assert problem.kind == "definer"
    assert "fails with error 1449" in problem.message


def test_a_table_of_another_engine_and_an_unsuitable_column_are_reported():
    assert only(capture(engine="MyISAM")).kind == "engine"
    unsuitable = ColumnProblem("column price", "column price of orders is of type text", "change its type")
    problem = only(capture(column_problems=(unsuitable,), expected={}))
    assert (problem.kind, problem.loses_changes) == ("column-type", True)


def test_serious_problems_come_first():
    doubled = (trigger("insert"), trigger("insert", suffix="2"), trigger("update"))
    assert [p.kind for p in find_problems(capture(triggers=doubled))] == ["trigger-missing", "trigger-doubled"]


def test_watermark_mode_needs_no_triggers():
    assert find_problems(capture(triggers=(), expected={}, needs_triggers=False)) == []
    gone = capture(triggers=(), expected={}, needs_triggers=False, columns=frozenset())
    assert [problem.kind for problem in find_problems(gone)] == ["table"]
