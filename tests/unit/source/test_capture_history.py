"""What the source remembers of its triggers and of its database, from one observation to the next."""

from __future__ import annotations

import msgspec

from app.control.source_state import CaptureState, VerifyResult
from source import capture_history
from source.capture_history import Observation
from source.drift import Capture, CaptureProblem
from source.installed_triggers import InstalledTrigger

CREATED = {"insert": "monday", "update": "monday", "delete": "monday"}
STATE = CaptureState(table="shop.orders", server="first", first_version=100, created=CREATED)
LOST = CaptureProblem("trigger-missing", "a trigger is missing: run setup", loses_changes=True)


def observation(created: str = "monday", problems: tuple[CaptureProblem, ...] = (), **changes: object) -> Observation:
    """An observation of intact triggers at time 50, but for the changes."""
    triggers = tuple(InstalledTrigger("shop", event, "orders", event, "u@h", "body", created) for event in CREATED)
    fields = {name: changes.pop(name) for name in ("first_version", "next_id") if name in changes}
    capture = Capture(
        table="orders", columns=frozenset({"a"}), column_problems=(), engine="InnoDB", key=(), time_type=None,
        expected=dict.fromkeys(CREATED, "body"), triggers=triggers, first_version=100, next_id=200,
    )._replace(**fields)  # fmt: skip
    seen = Observation(50, 45, "first", capture, list(problems), 150)
    return seen._replace(**changes)


def test_intact_triggers_change_nothing():
    assert capture_history.update(STATE, observation()) == STATE


def test_changes_are_missed_from_the_last_intact_observation_until_the_next_one():
    lost = capture_history.update(STATE, observation(problems=(LOST,)))
    assert (lost.missed_since, lost.missed_until) == (45, None)
    assert capture_history.update(lost, observation(problems=(LOST,), now=60)) == lost
    found = capture_history.update(lost, observation(now=70))
    assert (found.missed_since, found.missed_until) == (45, 70)
    again = capture_history.update(found, observation(problems=(LOST,), now=80))
    assert (again.missed_since, again.missed_until) == (45, None)


def test_triggers_that_were_created_by_somebody_else_may_have_missed_changes():
    replaced = capture_history.update(STATE, observation("tuesday"))
    assert (replaced.missed_since, replaced.missed_until) == (45, 50)
    assert set(replaced.created.values()) == {"tuesday"}
    assert capture_history.update(replaced, observation("tuesday", now=60)) == replaced


def test_setup_begins_anew():
    missed = msgspec.structs.replace(STATE, missed_since=1, missed_until=2)
    anew = capture_history.update(missed, observation("tuesday", first_version=160, next_id=200))
    assert (anew.missed_since, anew.first_version, set(anew.created.values())) == (None, 160, {"tuesday"})


def test_a_next_id_that_is_not_above_all_published_versions_is_that_of_an_older_database():
    assert not capture_history.is_database_older(STATE, observation(next_id=151))
    restored = capture_history.update(STATE, observation(next_id=150))
    assert (restored.restored_at, restored.highest_version, restored.missed_since) == (50, 150, None)
    assert capture_history.is_database_older(STATE, observation(first_version=99))
    assert capture_history.is_database_older(STATE, observation(has_reused_ids=True))
    assert not capture_history.is_database_older(STATE, observation(first_version=None))


def test_the_same_triggers_on_another_server_are_those_of_a_replica_and_others_those_of_a_dump():
    replica = capture_history.update(STATE, observation(server="second"))
    assert (replica.server, replica.restored_at) == ("second", None)
    restored = capture_history.update(STATE, observation("tuesday", server="second"))
    assert (restored.server, restored.restored_at, restored.missed_since) == ("second", 50, None)


def test_a_later_verification_without_differences_proves_that_nothing_is_missing():
    state = msgspec.structs.replace(STATE, missed_since=1, missed_until=20, restored_at=30)
    assert capture_history.after_verification(state, None) == state
    assert capture_history.after_verification(state, VerifyResult(began_at=40, clean_at=10)) == state
    partly = capture_history.after_verification(state, VerifyResult(began_at=25, clean_at=25))
    assert (partly.missed_since, partly.restored_at) == (None, 30)
    assert capture_history.after_verification(state, VerifyResult(began_at=40, clean_at=40)) == STATE


def test_the_messages_contain_the_times_and_the_next_step():
    lost = msgspec.structs.replace(STATE, missed_since=0)
    (problem,) = capture_history.with_history(lost, [LOST], False)
    assert problem.message == "a trigger is missing since 1970-01-01T00:00:00Z: run setup"
    found = msgspec.structs.replace(lost, missed_until=10**6, restored_at=10**6)
    missed, restored = capture_history.with_history(found, [], False)
    assert (missed.kind, restored.kind) == ("missed", "restored")
    assert "between 1970-01-01T00:00:00Z and 1970-01-01T00:00:01Z" in missed.message
    assert "lately verify --repair" in missed.message
    assert "lately verify --repair" in restored.message
    (restored,) = capture_history.with_history(msgspec.structs.replace(STATE, restored_at=1), [], True)
    assert "run `lately source setup` as a user who may alter the outbox" in restored.message
