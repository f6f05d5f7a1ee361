"""Differences between the triggers, the shop's table and what the source was set up for.

A pure function: `drift_reader` reads the two sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from source.columns import ColumnProblem
from source.installed_triggers import EVENTS, InstalledTrigger

#: Kinds of problems; they are values of the label `kind` of a metric.
KINDS = (
    TABLE, COLUMN_MISSING, COLUMN_TYPE, COLUMN_ADDED, ENGINE, PRIMARY_KEY, TRIGGER_MISSING, TRIGGER_OUTDATED,
    TRIGGER_DOUBLED, TRIGGER_ELSEWHERE, DEFINER, OUTBOX_MISSING, MISSED, RESTORED,
) = (
    "table", "column-missing", "column-type", "column-added", "engine", "primary-key", "trigger-missing",
    "trigger-outdated", "trigger-doubled", "trigger-elsewhere", "definer", "outbox-missing", "missed", "restored",
)  # fmt: skip

_SETUP = "run `lately source setup`"
_REFERENCE = re.compile(r"(?<![\w`.])(?:NEW|OLD)\s*\.\s*`((?:[^`]|``)+)`", re.IGNORECASE)
_KEY_COLUMN = re.compile(r"`\s*\.\s*`((?:[^`]|``)+)` = OLD\.`\1`")
_IS_TIMESTAMP = re.compile(r"UNIX_TIMESTAMP\((?:NEW|OLD)\.`", re.IGNORECASE)


class CaptureProblem(NamedTuple):
    """A problem of the capture, with its consequence for the shop and the next step.

    `is_critical`: statements of the shop fail, or events are missing or wrong. `loses_changes`:
    changes that the shop commits meanwhile are missing or wrong in `orders`.
    """

    kind: str
    message: str
    is_critical: bool = True
    loses_changes: bool = False


class Capture(NamedTuple):
    """The shop's table, the triggers and the outbox, as they are."""

    #: Name of the shop's table.
    table: str
    #: All columns of the shop's table in lower case; empty: there is no such table.
    columns: frozenset[str]
    #: Problems of the columns that Lately reads.
    column_problems: tuple[ColumnProblem, ...]
    engine: str
    key: tuple[str, ...]
    #: Data type of the shop's column of `ordered_at`, in lower case; None: unknown.
    time_type: str | None
    #: Event -> body of the trigger that fits the present columns; empty: they fit no trigger.
    expected: dict[str, str]
    #: All triggers of the shop's database that write to the outbox.
    triggers: tuple[InstalledTrigger, ...]
    #: The first version of the outbox and its next id; None: the outbox does not exist.
    first_version: int | None = 1
    next_id: int | None = 1
    #: Definers of triggers whose accounts do not exist.
    missing_definers: frozenset[str] = frozenset()
    #: False in watermark mode, which needs no triggers.
    needs_triggers: bool = True

    @property
    def has_outbox(self) -> bool:
        """Return whether the outbox and the table of its first version exist."""
        return self.first_version is not None and self.next_id is not None


def find_problems(capture: Capture) -> list[CaptureProblem]:
    """Return the problems of the capture, the most serious ones first."""
    problems = [
        *_table_problems(capture),
        *_outbox_problems(capture),
        *_missing_columns(capture),
        *_trigger_problems(capture),
        *_elsewhere(capture),
    ]
    return sorted(problems, key=lambda problem: (not problem.is_critical, not problem.loses_changes))


def created_by_event(capture: Capture) -> dict[str, str]:
    """Return event -> time at which its trigger was created; of several, the one as expected."""
    created = {}
    for event in EVENTS:
        own = sorted(_own(capture, event), key=lambda trigger: trigger.body != capture.expected.get(event))
        if own:
            created[event] = own[0].created
    return created


def _table_problems(capture: Capture) -> Iterator[CaptureProblem]:
    if not capture.columns:
        cause = f"the table {capture.table} does not exist any more (dropped or renamed?), its orders are not captured"
        yield CaptureProblem(TABLE, f"{cause}: create it, or set LATELY_SOURCE_TABLE", loses_changes=True)
        return
    if capture.engine.lower() != "innodb":
        yield CaptureProblem(ENGINE, f"the table's engine is {capture.engine}: ALTER TABLE … ENGINE=InnoDB")
    for problem in capture.column_problems:
        kind = COLUMN_MISSING if "has no column" in problem.problem else COLUMN_TYPE
        yield CaptureProblem(
            kind, f"{problem.problem}, so its orders cannot be published: {problem.fix}; then {_SETUP}",
            loses_changes=kind == COLUMN_TYPE,
        )  # fmt: skip


def _outbox_problems(capture: Capture) -> Iterator[CaptureProblem]:
    writers = _own(capture)
    if not capture.has_outbox:
        consequence = (
            f"every {_statements(writers)} of the shop fails with error 1146" if writers else "changes are lost"
        )
        yield CaptureProblem(
            OUTBOX_MISSING, f"the outbox does not exist any more, {consequence}: {_SETUP}", loses_changes=True
        )
    for definer in sorted(capture.missing_definers):
        affected = [trigger for trigger in writers if trigger.definer == definer]
        if affected:
            cause = f"the account {definer}, the definer of the triggers, does not exist any more"
            consequence = f"every {_statements(affected)} of the shop fails with error 1449"
            yield CaptureProblem(DEFINER, f"{cause}, {consequence}: create the account again, or {_SETUP}")


def _missing_columns(capture: Capture) -> Iterator[CaptureProblem]:
    if not capture.columns:
        return
    failing: dict[str, list[InstalledTrigger]] = {}
    for trigger in _own(capture):
        for name in _referenced_columns(trigger.body) - capture.columns:
            failing.setdefault(name, []).append(trigger)
    for name, affected in sorted(failing.items()):
        cause = f"the column {name} of {capture.table} was renamed or dropped and the triggers use it"
        consequence = f"every {_statements(affected)} of the shop fails with error 1054"
        yield CaptureProblem(COLUMN_MISSING, f"{cause}, {consequence} until the triggers fit: {_SETUP}")


def _trigger_problems(capture: Capture) -> Iterator[CaptureProblem]:
    if not (capture.columns and capture.needs_triggers):
        return
    missing = [event for event in EVENTS if not _own(capture, event)]
    if missing:
        other = _other_tables(capture)
        place = f" (they are on {', '.join(other)})" if other else ""
        cause = f"{capture.table} has no trigger for {', '.join(map(str.upper, missing))}{place}"
        yield CaptureProblem(TRIGGER_MISSING, f"{cause}, these changes are not captured: {_SETUP}", loses_changes=True)
    for event in EVENTS:
        own = _own(capture, event)
        if len(own) > 1:
            names = ", ".join(trigger.name for trigger in own)
            cause = f"{len(own)} triggers write every {event.upper()} to the outbox ({names})"
            yield CaptureProblem(TRIGGER_DOUBLED, f"{cause}, changes are captured twice: {_SETUP}", is_critical=False)
    yield from _outdated_triggers(capture)


def _outdated_triggers(capture: Capture) -> Iterator[CaptureProblem]:
    """Yield why the bodies of triggers differ from the expected ones."""
    outdated = [
        own[0]
        for event, body in capture.expected.items()
        if (own := _own(capture, event)) and all(trigger.body != body for trigger in own)
    ]
    if not outdated or any(_referenced_columns(trigger.body) - capture.columns for trigger in outdated):
        return
    for trigger in outdated:
        was_timestamp = _IS_TIMESTAMP.search(trigger.body) is not None
        if capture.time_type is not None and was_timestamp != (capture.time_type == "timestamp"):
            before = "TIMESTAMP" if was_timestamp else "DATETIME"
            cause = f"the column of ordered_at was {before} and is {capture.time_type.upper()} now"
            consequence = "the times of new events are wrong by the difference of the time zones"
            yield CaptureProblem(COLUMN_TYPE, f"{cause}, {consequence}: {_SETUP}", loses_changes=True)
            return
    for trigger in outdated:
        key = tuple(name.lower() for name in _KEY_COLUMN.findall(trigger.body))
        if trigger.event == "update" and key != capture.key:
            before, after = (", ".join(names) or "none" for names in (key, capture.key))
            cause = f"the primary key of {capture.table} was {before} and is {after} now"
            consequence = "some changes may not be captured"
            yield CaptureProblem(PRIMARY_KEY, f"{cause}, {consequence}: {_SETUP}", loses_changes=True)
            return
    added: set[str] = set()
    for trigger in outdated:
        added |= _referenced_columns(capture.expected[trigger.event]) - _referenced_columns(trigger.body)
    if added:
        cause = f"{capture.table} has the columns {', '.join(sorted(added))}, which the triggers do not use"
        yield CaptureProblem(COLUMN_ADDED, f"{cause}, their values are not published: {_SETUP}", is_critical=False)
        return
    events = ", ".join(trigger.event.upper() for trigger in outdated)
    cause = f"the triggers for {events} are not those that this version of Lately creates for {capture.table}"
    yield CaptureProblem(TRIGGER_OUTDATED, f"{cause}, events may lack values: {_SETUP}", is_critical=False)


def _elsewhere(capture: Capture) -> Iterator[CaptureProblem]:
    if not capture.needs_triggers or any(not _own(capture, event) for event in EVENTS):
        return
    for table in _other_tables(capture):
        cause = f"triggers of the table {table} also write to the outbox (a copy for a schema change?)"
        consequence = f"changes of {table} are published like those of {capture.table}"
        fix = f"drop {table} when it is not needed any more"
        yield CaptureProblem(TRIGGER_ELSEWHERE, f"{cause}, {consequence}: {fix}", is_critical=False)


def _own(capture: Capture, event: str | None = None) -> list[InstalledTrigger]:
    """Return the triggers on the shop's table, of all events or one."""
    return [
        trigger
        for trigger in capture.triggers
        if _is_own(capture, trigger) and (event is None or trigger.event == event)
    ]


def _other_tables(capture: Capture) -> list[str]:
    """Return the other tables with triggers that write to the outbox."""
    return sorted({trigger.table for trigger in capture.triggers if not _is_own(capture, trigger)})


def _is_own(capture: Capture, trigger: InstalledTrigger) -> bool:
    # Some servers store all names of tables in lower case.
    return trigger.table.lower() == capture.table.lower()


def _referenced_columns(body: str) -> set[str]:
    """Return the columns of the shop's table that a trigger's body uses, in lower case."""
    return {name.replace("``", "`").lower() for name in _REFERENCE.findall(body)}


def _statements(triggers: Iterable[InstalledTrigger]) -> str:
    events = {trigger.event for trigger in triggers}
    return " and ".join(event.upper() for event in reversed(EVENTS) if event in events)
