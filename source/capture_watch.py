"""What the running source knows about its capture: present problems, and changes that may be missing."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from app import metrics
from app.control.source_state import CaptureState, LeaderStatus, SourceProblem, SourceStates
from app.errors import BadSource
from app.settings import OUTBOX, Settings
from domain.values import rfc3339
from source import drift, versions
from source.drift import Problem
from source.drift_reader import read_capture
from source.mysql import Connection, read_server_name, read_server_time
from source.outbox_row import OutboxRow
from source.publisher import Publisher

log = logging.getLogger(__name__)

#: An unchanged problem is logged again after this time.
REPEAT_LOG_S = 600.0
#: A problem is reported if it still exists after this time.
SECOND_READ_S = 0.3
#: The triggers of other tables are read after this time.
ALL_TABLES_INTERVAL_S = 60.0


class CaptureWatch:
    """Compares the capture with what it was set up for; `problems` is the last result.

    `state` is the state to store in the topic source-state; None before the first check.
    """

    def __init__(self, settings: Settings, states: SourceStates) -> None:
        self._settings = settings
        self._table = f"{settings.mysql_database}.{settings.source_table}"
        stored = states.capture
        self.state = stored if stored is not None and stored.table == self._table else None
        #: The content of source-state; `lately verify` stores there that nothing is missing.
        self.states = states
        self.problems: list[Problem] = []
        #: The highest published version, and a time at which all ids up to it had been assigned.
        self.highest = 0 if states.capture is None else states.capture.highest_version
        self.assigned_before: tuple[int, int] | None = None
        if states.status is not None:
            self.highest = max(self.highest, states.status.highest_version)
            self.assigned_before = states.status.highest_version, states.status.written_at
        #: The database is older than the published changes, and versions could not be begun anew.
        self._is_refused = self._is_older = False
        #: The last time at which all triggers were right (microseconds, the server's clock).
        self._intact_at = _last_seen_at(states.status)
        self._all_tables_at = -ALL_TABLES_INTERVAL_S
        #: Message -> time of the monotonic clock at which it was logged.
        self._logged: dict[str, float] = {}

    async def observe(self, connection: Connection, publisher: Publisher, is_older: bool = False) -> None:
        """Check the capture, and store what must survive this process.

        `is_older`: rows of the outbox show that the database was restored. Raises
        mysql.connector.Error, KafkaError, ServerAway.
        """
        is_changed = await asyncio.to_thread(self.check, connection, is_older)
        if is_changed and self.state is not None:
            await publisher.write_states(self.state)
        if self._is_older and self.state is not None:
            await self._begin_versions_anew(publisher)

    async def _begin_versions_anew(self, publisher: Publisher) -> None:
        """Let new versions win against those published before the database was restored.

        1. `check` has found it, and the state in Kafka says so: after a kill it is not forgotten.
        2. Begin versions anew in the database.
        3. Store the new first version.

        After a kill between 2. and 3. the new first version looks like one of `setup`.
        """
        try:
            first = await asyncio.to_thread(versions.restart_versions, self._settings, self.highest)
        except BadSource as exc:
            self._is_refused = True
            log.error("%s", exc)
            return
        self._is_refused = self._is_older = False
        log.warning("versions begin anew at %d, above all that were published", first)
        if self.state is not None:
            self.state = msgspec.structs.replace(self.state, first_version=first)
            await publisher.write_states(self.state)

    def note_published(self, rows: list[OutboxRow]) -> None:
        """Remember the versions of rows that Kafka has acknowledged."""
        self.highest = max([self.highest, *(row.version for row in rows if row.version < versions.MAX_VERSION)])

    def note_time(self, now: int) -> None:
        """Remember that all ids up to the highest version were assigned before `now`."""
        self.assigned_before = self.highest, now

    @property
    def is_blocked(self) -> bool:
        """Whether nothing can be read: the outbox, the table or a column does not exist."""
        kinds = {problem.kind for problem in self.problems}
        if self._is_refused:
            return True
        if self._settings.source_mode == OUTBOX:
            return drift.OUTBOX_MISSING in kinds
        return not kinds.isdisjoint((drift.TABLE, drift.COLUMN_MISSING, drift.COLUMN_TYPE))

    @property
    def is_critical(self) -> bool:
        """Whether statements of the shop fail, or changes are missing or wrong."""
        return any(problem.is_critical for problem in self.problems)

    @property
    def messages(self) -> tuple[str, ...]:
        """The messages of the critical problems."""
        return tuple(problem.message for problem in self.problems if problem.is_critical)

    def to_status(self) -> tuple[SourceProblem, ...]:
        """Return the problems for the status of the leader."""
        return tuple(SourceProblem(problem.kind, problem.message) for problem in self.problems)

    def check(self, connection: Connection, is_older: bool = False) -> bool:
        """Read the capture and update `problems`; return whether `state` must be stored.

        Raises mysql.connector.Error.
        """
        now = read_server_time(connection)
        is_due = time.monotonic() - self._all_tables_at > ALL_TABLES_INTERVAL_S
        if is_due or self.problems:
            self._all_tables_at = time.monotonic()
        capture = read_capture(connection, self._settings, is_due or bool(self.problems))
        before = self.state
        problems = drift.find_problems(capture)
        if problems and not self.problems:
            # The statements do not read one moment: a table may be swapped between them.
            time.sleep(SECOND_READ_S)
            capture = read_capture(connection, self._settings)
            problems = drift.find_problems(capture)
        if self._settings.source_mode == OUTBOX:
            self._update_state(connection, capture, problems, now, is_older)
            self._forget_what_is_verified()
            problems = self._with_history(problems)
        self.problems = problems
        self._report()
        return self.state != before

    def _update_state(
        self, connection: Connection, capture: drift.Capture, problems: list[Problem], now: int, is_older: bool
    ) -> None:
        """Note when changes may have been missed; `setup` begins a new state with a first version.

        The triggers of the state were created at other times than those of the database when
        somebody has dropped and created them in between.
        """
        server = read_server_name(connection)
        first_version = capture.first_version or 0
        created = drift.created_by_event(capture)
        loses_changes = any(problem.loses_changes for problem in problems)
        state = self.state or CaptureState(table=self._table, server=server, first_version=first_version)
        if first_version > state.first_version and not loses_changes:
            state = msgspec.structs.replace(
                state, first_version=first_version, created=created, missed_since=None, missed_until=None
            )
        is_older = is_older or self._is_database_older(capture, state)
        is_replaced = any(created.get(event, time) != time for event, time in state.created.items())
        if server != state.server:
            log.warning("MySQL is another server (%s) than before (%s)", server, state.server or "unknown")
            # The triggers of a replica were created at the same times as those of its primary.
            if (is_replaced or is_older) and state.restored_at is None:
                state = msgspec.structs.replace(state, restored_at=now)
            is_replaced = False
            state = msgspec.structs.replace(state, server=server)
        self._is_older, self._is_refused = is_older, is_older and self._is_refused
        if is_older:
            restored_at = state.restored_at if self._is_refused else now
            state = msgspec.structs.replace(
                state, restored_at=restored_at, first_version=first_version, highest_version=self.highest
            )
            is_replaced = False
        if loses_changes:
            if state.missed_since is None or state.missed_until is not None:
                since = state.missed_since or self._intact_at or now
                state = msgspec.structs.replace(state, missed_since=since, missed_until=None)
        else:
            if is_replaced and state.missed_since is None:
                state = msgspec.structs.replace(state, missed_since=self._intact_at or now)
            if state.missed_since is not None and state.missed_until is None:
                state = msgspec.structs.replace(state, missed_until=now)
            state = msgspec.structs.replace(state, created={**state.created, **created})
            self._intact_at = now
        self.state = state

    def _is_database_older(self, capture: drift.Capture, state: CaptureState) -> bool:
        """Return whether the outbox would assign published versions again, or has another origin."""
        first_version, next_id = capture.first_version, capture.next_id
        if first_version is None or next_id is None:
            return False
        return first_version < state.first_version or next_id <= max(self.highest, first_version - 1)

    def _forget_what_is_verified(self) -> None:
        """A full comparison without differences that began later proves that nothing is missing."""
        state, verified = self.state, self.states.verified
        clean_at = None if verified is None else verified.clean_at
        if state is None or clean_at is None:
            return
        if state.missed_until is not None and clean_at > state.missed_until:
            state = msgspec.structs.replace(state, missed_since=None, missed_until=None)
        if state.restored_at is not None and clean_at > state.restored_at:
            state = msgspec.structs.replace(state, restored_at=None)
        self.state = state

    def _with_history(self, problems: list[Problem]) -> list[Problem]:
        """Add since when changes are lost, and which ones may be missing now that all is right."""
        state = self.state
        if state is not None and state.restored_at is not None:
            cause = f"the database is older than the changes published before {rfc3339(state.restored_at)} (restored?)"
            step = "run `lately verify --repair`, which makes the tables equal to it"
            if self._is_refused:
                step = "run `lately source setup` as a user who may alter the outbox, then `lately verify --repair`"
            problems = [Problem(drift.RESTORED, f"{cause}: {step}"), *problems]
        if state is None or state.missed_since is None:
            return problems
        since = rfc3339(state.missed_since)
        if state.missed_until is None:
            return [_add_time(problem, since) if problem.loses_changes else problem for problem in problems]
        cause = f"changes of {self._table} between {since} and {rfc3339(state.missed_until)} may be missing"
        steps = "`lately verify --repair` finds and repairs them, `lately source setup` publishes the present rows anew"
        return [Problem(drift.MISSED, f"{cause}: {steps}"), *problems]

    def _report(self) -> None:
        """Log each problem once, and again after a while; set the metric."""
        now = time.monotonic()
        metrics.set_problems(problem.kind for problem in self.problems)
        for problem in self.problems:
            logged_at = self._logged.get(problem.message)
            if logged_at is None or now - logged_at > REPEAT_LOG_S:
                self._logged[problem.message] = now
                level = logging.ERROR if problem.is_critical else logging.WARNING
                log.log(level, "%s: %s", problem.kind, problem.message)
        messages = {problem.message for problem in self.problems}
        for message in [message for message in self._logged if message not in messages]:
            del self._logged[message]
            log.warning("not any more: %s", message.partition(": ")[0])


def _add_time(problem: Problem, since: str) -> Problem:
    cause, separator, fix = problem.message.partition(": ")
    return problem._replace(message=f"{cause} since {since}{separator}{fix}")


def _last_seen_at(status: LeaderStatus | None) -> int | None:
    """Return when the previous leader still saw its triggers."""
    return None if status is None else status.written_at
