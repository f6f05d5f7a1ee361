"""History of the triggers and the database since `setup`: pure functions on CaptureState.

Times are microseconds since 1970, by the clock of the shop's database.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from app.control.source_state import CaptureState, VerifyResult
from domain.values import rfc3339
from source import drift
from source.drift import CaptureProblem


class Observation(NamedTuple):
    """The result of one read of the capture."""

    #: The time before the read, and the last time at which all triggers were right.
    now: int
    intact_at: int | None
    #: Name of the database server.
    server: str
    capture: drift.Capture
    problems: list[CaptureProblem]
    #: The highest published version.
    highest: int
    #: Rows of the outbox have ids that were assigned before.
    has_reused_ids: bool = False


def is_database_older(state: CaptureState, observation: Observation) -> bool:
    """Return whether the outbox would assign published versions again, or is that of another time."""
    first_version, next_id = observation.capture.first_version, observation.capture.next_id
    if first_version is None or next_id is None:
        return False
    is_below = next_id <= max(observation.highest, first_version - 1)
    return observation.has_reused_ids or first_version < state.first_version or is_below


def update(state: CaptureState, observation: Observation) -> CaptureState:
    """Return the state after an observation: since when changes are missed, and until when.

    A greater first version is that of a new `setup`. The times at which triggers were created
    differ from those of the state when somebody has dropped and created triggers in between; those
    of a replica are the ones of its primary.
    """
    now, capture = observation.now, observation.capture
    first_version = capture.first_version or 0
    created = drift.created_by_event(capture)
    loses_changes = any(problem.loses_changes for problem in observation.problems)
    if first_version > state.first_version and not loses_changes:
        state = msgspec.structs.replace(
            state, first_version=first_version, created=created, missed_since=None, missed_until=None
        )
    is_older = is_database_older(state, observation)
    is_replaced = any(created.get(event, time) != time for event, time in state.created.items())
    if is_older or (is_replaced and observation.server != state.server):
        state = msgspec.structs.replace(
            state, restored_at=now, first_version=first_version, highest_version=observation.highest
        )
        is_replaced = False
    state = msgspec.structs.replace(state, server=observation.server)
    if loses_changes:
        if state.missed_since is None or state.missed_until is not None:
            since = state.missed_since or observation.intact_at or now
            state = msgspec.structs.replace(state, missed_since=since, missed_until=None)
        return state
    if is_replaced and state.missed_since is None:
        state = msgspec.structs.replace(state, missed_since=observation.intact_at or now)
    if state.missed_since is not None and state.missed_until is None:
        state = msgspec.structs.replace(state, missed_until=now)
    return msgspec.structs.replace(state, created={**state.created, **created})


def after_verification(state: CaptureState, verified: VerifyResult | None) -> CaptureState:
    """Forget what a full comparison without differences, which began later, has proven."""
    clean_at = None if verified is None else verified.clean_at
    if clean_at is None:
        return state
    if state.missed_until is not None and clean_at > state.missed_until:
        state = msgspec.structs.replace(state, missed_since=None, missed_until=None)
    if state.restored_at is not None and clean_at > state.restored_at:
        state = msgspec.structs.replace(state, restored_at=None)
    return state


def with_history(state: CaptureState, problems: list[CaptureProblem], is_refused: bool) -> list[CaptureProblem]:
    """Add to `problems` since when changes are lost, and which ones may be missing now.

    `is_refused`: versions could not be begun anew in the database.
    """
    problems = list(problems)
    if state.restored_at is not None:
        cause = f"the database is older than the changes published before {rfc3339(state.restored_at)} (restored?)"
        step = "run `lately verify --repair`, which makes the tables equal to it"
        if is_refused:
            step = "run `lately source setup` as a user who may alter the outbox, then `lately verify --repair`"
        problems.insert(0, CaptureProblem(drift.RESTORED, f"{cause}: {step}"))
    if state.missed_since is None:
        return problems
    since = rfc3339(state.missed_since)
    if state.missed_until is None:
        return [_add_time(problem, since) if problem.loses_changes else problem for problem in problems]
    cause = f"changes of {state.table} between {since} and {rfc3339(state.missed_until)} may be missing"
    steps = "`lately verify --repair` finds and repairs them, `lately source setup` publishes the present rows anew"
    return [CaptureProblem(drift.MISSED, f"{cause}: {steps}"), *problems]


def _add_time(problem: CaptureProblem, since: str) -> CaptureProblem:
    cause, separator, fix = problem.message.partition(": ")
    return problem._replace(message=f"{cause} since {since}{separator}{fix}")
