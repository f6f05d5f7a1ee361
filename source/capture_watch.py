"""Observation of the capture by the running source: present problems, and changes that may be missing."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from app import metrics
from app.control.source_state import CaptureState, LeaderStatus, SourceProblem, SourceStates
from app.errors import BadSource
from app.settings import OUTBOX, Settings
from source import capture_history, drift, versions
from source.capture_history import Observation
from source.drift import CaptureProblem
from source.drift_reader import read_capture
from source.mysql import Connection, read_server_name, read_server_time
from source.outbox_row import OutboxRow
from source.publisher import Publisher
from source.watermark import Watermark

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
        self._table = settings.shop_table
        stored = states.capture
        self.state = stored if stored is not None and stored.table == self._table else None
        #: The content of source-state; `lately verify` stores there that nothing is missing.
        self.states = states
        self.problems: list[CaptureProblem] = []
        #: The highest published version, and a time at which all ids up to it had been assigned.
        self.highest = states.highest_version
        self.assigned_before: tuple[int, int] | None = None
        if states.status is not None:
            self.assigned_before = states.status.highest_version, states.status.written_at
        #: The database is older than the published changes, and versions could not be begun anew.
        self._is_refused = self._is_older = False
        #: The last time at which all triggers were right (microseconds, the server's clock).
        self._intact_at = _last_seen_at(states.status)
        self._all_tables_at = -ALL_TABLES_INTERVAL_S
        #: Message -> time of the monotonic clock at which it was logged.
        self._logged: dict[str, float] = {}

    async def observe(self, connection: Connection, publisher: Publisher, has_reused_ids: bool = False) -> None:
        """Check the capture, and store what must survive this process.

        `has_reused_ids`: rows of the outbox show that the database was restored. Raises
        mysql.connector.Error, KafkaError, ServerAway.
        """
        is_changed = await asyncio.to_thread(self.check, connection, has_reused_ids)
        if is_changed and self.state is not None:
            await publisher.write_states(self.state)
        if self._is_older and self.state is not None:
            await self._begin_versions_anew(publisher)

    async def note_restored(self, connection: Connection, publisher: Publisher, capture: Watermark) -> None:
        """Report that the shop's table is older than the published rows, in watermark mode.

        The position of `capture` is stored last: after a kill in between, the table is found again.
        """
        now = await asyncio.to_thread(read_server_time, connection)
        self.state = msgspec.structs.replace(self.state or CaptureState(table=self._table), restored_at=now)
        await publisher.write_states(self.state, capture.resume_state())

    async def _begin_versions_anew(self, publisher: Publisher) -> None:
        """Let new versions win against those published before the database was restored.

        1. `check` has found it, and the state in Kafka says so: after a kill it is not forgotten.
        2. Begin versions anew in the database.
        3. Store the new first version.

        After a kill between 2. and 3. the new first version looks like one of `setup`.
        """
        try:
            first = await asyncio.to_thread(versions.restart_versions_above, self._settings, self.highest)
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
        """Return whether nothing can be read: the outbox, the table or a column does not exist."""
        kinds = {problem.kind for problem in self.problems}
        if self._is_refused:
            return True
        if self._settings.source_mode == OUTBOX:
            return drift.OUTBOX_MISSING in kinds
        return not kinds.isdisjoint((drift.TABLE, drift.COLUMN_MISSING, drift.COLUMN_TYPE))

    @property
    def is_critical(self) -> bool:
        """Return whether statements of the shop fail, or changes are missing or wrong."""
        return any(problem.is_critical for problem in self.problems)

    @property
    def messages(self) -> tuple[str, ...]:
        """The messages of the critical problems."""
        return tuple(problem.message for problem in self.problems if problem.is_critical)

    def to_status(self) -> tuple[SourceProblem, ...]:
        """Return the problems for the status of the leader."""
        return tuple(SourceProblem(problem.kind, problem.message) for problem in self.problems)

    def check(self, connection: Connection, has_reused_ids: bool = False) -> bool:
        """Read the capture and update `problems`; return whether `state` must be stored.

        Raises mysql.connector.Error.
        """
        now = read_server_time(connection)
        capture, problems = self._read(connection)
        before = self.state
        if self._settings.source_mode == OUTBOX:
            server = read_server_name(connection)
            observation = Observation(now, self._intact_at, server, capture, problems, self.highest, has_reused_ids)
            self._update_state(observation)
        if self.state is not None:
            self.state = capture_history.after_verification(self.state, self.states.verified)
            problems = capture_history.with_history(self.state, problems, self._is_refused)
        self.problems = problems
        self._report()
        return self.state != before

    def _read(self, connection: Connection) -> tuple[drift.Capture, list[CaptureProblem]]:
        """Read the capture; a new problem must exist at a second read."""
        is_due = bool(self.problems) or time.monotonic() - self._all_tables_at > ALL_TABLES_INTERVAL_S
        if is_due:
            self._all_tables_at = time.monotonic()
        capture = read_capture(connection, self._settings, is_due)
        problems = drift.find_problems(capture)
        if problems and not self.problems:
            # The statements do not read one moment: a table may be swapped between them.
            time.sleep(SECOND_READ_S)
            capture = read_capture(connection, self._settings)
            problems = drift.find_problems(capture)
        return capture, problems

    def _update_state(self, observation: Observation) -> None:
        first_version = observation.capture.first_version or 0
        state = self.state or CaptureState(table=self._table, server=observation.server, first_version=first_version)
        if state.server != observation.server:
            log.warning("MySQL is another server (%s) than before (%s)", observation.server, state.server or "unknown")
        self._is_older = capture_history.is_database_older(state, observation)
        if self._is_older and self._is_refused and state.restored_at is not None:
            return  # it is known, and its time stays as it was reported
        self._is_refused = False
        self.state = capture_history.update(state, observation)
        if self.state.missed_until is not None or self.state.missed_since is None:
            self._intact_at = observation.now

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


def _last_seen_at(status: LeaderStatus | None) -> int | None:
    """Return when the previous leader still saw its triggers."""
    return None if status is None else status.written_at
