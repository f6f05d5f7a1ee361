"""`lately verify`: compare the table by_user with the shop's database while orders flow.

A first pass reads both sides completely and finds the users who may differ. A difference may also
be an event in flight. So each of these users is compared again, with reads ordered so that no
change can be missed (docs/decisions/008-verify-by-two-reads.md).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass, field

import mysql.connector

from app.control import source_state
from app.control.state_topic import SourceStateReader, open_reader
from app.errors import DatabaseAway, ServerAway
from app.ids import require_user_id
from app.polling import poll_until
from app.settings import Settings
from app.topics import Topics
from commands.repair import (
    BATCH_USERS,
    Comparison,
    RepairVersion,
    batches_of_users,
    merge_by_user,
    publish_repairs,
    recheck,
    unique_users,
)
from commands.verify.mysql_copy import MysqlCopy
from commands.worker_client import WorkerClient, open_worker_client
from domain.differences import PurchaseDifference, count_optional, find_differences, is_unchanged
from domain.purchases import Purchase
from domain.values import rfc3339
from source import snapshot, user_rows
from source.events import event_source
from source.mysql import connect, read_server_name, read_server_time
from source.publisher import open_publisher
from source.user_rows import RowsOfUsers

#: How long the source may need to publish committed changes, s.
PUBLISH_TIMEOUT_S = 60
#: How long a source that has just started may need to write its first status, s.
START_TIMEOUT_S = 5
POLL_INTERVAL_S = 0.2
#: A horizon after all orders (microseconds since 1970).
MAX_TIME = 2**63


@dataclass
class VerifyOutcome:
    """Result of a verification: differences and repairs by kind."""

    rows: int = 0
    users: int = 0
    differences: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    #: Rule -> number of rows that break it: they cannot be shown, and the tables must not have them.
    left_out: Counter[str] = field(default_factory=Counter)
    #: Rows that the table may lack, and lacks: of erased users, and from before the first snapshot.
    of_erased_users: int = 0
    before_horizon: int = 0
    #: Purchases that changed during each comparison.
    undecided: int = 0
    #: Time before the first row was read (microseconds since 1970); None if only some users were
    #: compared.
    started_at: int | None = None
    seconds: float = 0.0

    @property
    def remaining(self) -> int:
        """Number of differences that are not repaired."""
        return self.differences.total() - self.repaired

    @property
    def repaired(self) -> int:
        """Number of repaired differences."""
        return self.repairs.total()

    def to_dict(self) -> dict[str, object]:
        """Return the fields for JSON."""
        return {
            "rows": self.rows, "users": self.users, "differences": self.differences.total(), **self.differences,
            "repaired": self.repaired, "deferred": self.undecided, "left_out": self.left_out.total(),
            "left_out_rules": dict(self.left_out), "of_erased_users": self.of_erased_users,
            "before_horizon": self.before_horizon, "seconds": round(self.seconds, 1),
        }  # fmt: skip


@dataclass(frozen=True)
class VerifyOptions:
    """Options of a verification.

    No users means all users; `rows_per_s` 0 means unlimited; `worker` is a URL.
    """

    users: tuple[str, ...] = ()
    repair: bool = False
    rows_per_s: int = 0
    worker: str | None = None
    resume: bool = True


async def verify_tables(
    settings: Settings,
    options: VerifyOptions,
    report: Callable[[PurchaseDifference], None],
    progress: Callable[[int, int], None] = lambda rows, total: None,
) -> VerifyOutcome:
    """Compare the table with the database, report each difference, and repair it on request.

    Raises ServerAway, BadSource, FolderInUse: then the comparison is incomplete, but each reported
    difference is real.
    """
    for user in options.users:
        require_user_id(user)
    outcome, started_at = VerifyOutcome(), time.monotonic()
    async with open_reader(settings) as reader, open_worker_client(settings, options.worker) as worker_client:
        verification = _Verification(settings, reader, worker_client, outcome, report, options)
        users = unique_users(options.users) if options.users else verification.find_suspects(options, progress)
        async for batch in batches_of_users(users, BATCH_USERS):
            await verification.recheck(batch)
        if outcome.started_at is not None:
            await _write_result(settings, reader, outcome, outcome.started_at)
    outcome.users += len(options.users)
    outcome.seconds = time.monotonic() - started_at
    return outcome


class _Verification:
    def __init__(
        self,
        settings: Settings,
        reader: SourceStateReader,
        worker_client: WorkerClient,
        outcome: VerifyOutcome,
        report: Callable[[PurchaseDifference], None],
        options: VerifyOptions,
    ) -> None:
        self._settings, self._reader, self._worker_client = settings, reader, worker_client
        self._outcome, self._report, self._repairs = outcome, report, options.repair
        #: Users of `--user` whose left out and optional rows are not counted yet; a copy of all rows has
        #: counted those of the others.
        self._uncounted = set(options.users)
        last_snapshot = reader.states.snapshot
        horizon = source_state.MAX_HORIZON if last_snapshot is None else last_snapshot.horizon
        self._horizon = source_state.horizon_microseconds(horizon)

    async def find_suspects(self, options: VerifyOptions, progress: Callable[[int, int], None]) -> AsyncIterator[str]:
        """Yield the users whose purchases in the table and in the database may differ."""
        with closing(MysqlCopy(self._settings, options.resume)) as copy:
            started_at = copy.started_at
            await copy.fill(options.rows_per_s, progress)
            self._outcome.rows, self._outcome.left_out = copy.rows, copy.left_out
            for partition in range(self._settings.partitions):
                actual = self._worker_client.read_users(partition)
                async for user, rows, purchases in merge_by_user(copy.read_users(partition), actual):
                    self._outcome.users += 1
                    self._count_optional(user, rows, purchases)
                    if find_differences(user, rows, purchases, self._required_since(user)):
                        yield user
            copy.mark_complete()
        self._outcome.started_at = started_at

    async def recheck(self, users: list[str]) -> None:
        """Compare users again, report the confirmed differences and repair them."""
        repair = self._repair if self._repairs else None
        self._outcome.undecided += await recheck(users, self._compare, self._count, repair)

    def _count(self, difference: PurchaseDifference) -> None:
        self._outcome.differences[difference.kind] += 1
        self._report(difference)

    async def _compare(self, users: list[str]) -> Comparison:
        """Compare users, with reads that distinguish real differences from events in flight.

        1. Read the table. 2. Read the database. 3. Wait until all changes committed before the end
        of step 2 are published and applied. 4. Read the table again. If step 1 and step 4 return
        the same purchase, the stream did not change it in between, and all events of step 2 are
        applied. The version of a repair is lower than the version of every later change.
        """
        # 1.
        before = await self._worker_client.read_purchases(users)
        # 2.
        version, (rows, left_out), read_until = await asyncio.to_thread(_read_database, self._settings, users)
        # 3. and 4.
        after = await self._worker_client.read_purchases(users, await self._published_offsets(read_until))
        confirmed: list[PurchaseDifference] = []
        in_flight: list[PurchaseDifference] = []
        for user in users:
            if user in self._uncounted:
                self._count_optional(user, rows[user], after[user])
            for difference in find_differences(user, rows[user], after[user], self._required_since(user)):
                (confirmed if is_unchanged(difference, before[user]) else in_flight).append(difference)
        if self._uncounted.issuperset(users):
            self._outcome.left_out += left_out
            self._uncounted.difference_update(users)
        return Comparison(confirmed, in_flight, lambda difference: version)

    def _required_since(self, user: str) -> int | None:
        """Rows ordered before this time may be missing in the table: all rows of an erased user."""
        return MAX_TIME if user in self._worker_client.erasure_versions else self._horizon

    def _count_optional(self, user: str, rows: list[Purchase], purchases: list[Purchase]) -> None:
        """Count the rows that the table may lack, and lacks: nothing proves that they should be missing."""
        count = count_optional(rows, purchases, self._required_since(user))
        if user in self._worker_client.erasure_versions:
            self._outcome.of_erased_users += count
        else:
            self._outcome.before_horizon += count

    async def _published_offsets(self, committed_at: int) -> dict[int, int]:
        """Wait until all changes committed before a time (microseconds since 1970) are published.

        Returns the offsets of `orders` below which they are. Raises ServerAway.
        """
        started_at = time.monotonic()

        async def read_offsets() -> dict[int, int] | None:
            await self._reader.catch_up()
            status = self._reader.states.status
            if status is not None and status.as_of is not None and status.as_of >= committed_at:
                return status.offsets
            waited_s = time.monotonic() - started_at
            silent_s = None if status is None else (committed_at - status.written_at) / 1e6 + waited_s
            is_silent = silent_s is None or silent_s > source_state.STATUS_TIMEOUT_S
            if is_silent and waited_s > START_TIMEOUT_S:
                raise ServerAway(
                    "no source is running, so changes in flight cannot be distinguished from differences: "
                    "start `lately source`"
                )
            return None

        offsets = await poll_until(
            read_offsets, PUBLISH_TIMEOUT_S, POLL_INTERVAL_S, is_done=lambda offsets: offsets is not None
        )
        if offsets is None:
            status = self._reader.states.status
            as_of = None if status is None else status.as_of
            published = "an unknown time" if as_of is None else rfc3339(as_of)
            raise ServerAway(f"the source has published up to {published} only: see `lately source status`")
        return offsets

    async def _repair(self, differences: list[PurchaseDifference], version: RepairVersion) -> None:
        """Publish the repairs, and wait until the table contains them."""
        server = await asyncio.to_thread(_read_server_name, self._settings)
        source = event_source(server, self._settings)
        repaired = await publish_repairs(self._settings, self._worker_client, differences, version, source)
        self._outcome.repairs.update(difference.kind for difference in repaired)


async def _write_result(settings: Settings, reader: SourceStateReader, outcome: VerifyOutcome, started_at: int) -> None:
    """Publish the result, which workers return as `meta.verified_at`."""
    previous = reader.states.verified
    clean_at: int | None = started_at
    if outcome.remaining:
        clean_at = None if previous is None else previous.clean_at
    remaining = dict(outcome.differences - outcome.repairs)
    async with open_publisher(settings, Topics(settings)) as publisher:
        await publisher.write_states(
            source_state.VerifyResult(began_at=started_at, clean_at=clean_at, differences=remaining)
        )


def _read_database(settings: Settings, users: list[str]) -> tuple[int, RowsOfUsers, int]:
    """Return a version below that of any later change, the rows, the server's time."""
    try:
        with closing(connect(settings)) as connection:
            version = snapshot.snapshot_version(connection, settings)
            rows = user_rows.read_purchases(connection, settings, users)
            return version, rows, read_server_time(connection)
    except mysql.connector.Error as exc:
        raise DatabaseAway(f"MySQL did not answer ({exc}): try again") from None


def _read_server_name(settings: Settings) -> str:
    with closing(connect(settings)) as connection:
        return read_server_name(connection)
