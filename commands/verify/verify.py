"""`lately verify`: does the table by_user say what the shop's database says, while orders keep flowing?

First everything is read once from both sides, which finds the users who may differ. What differs there may as well be
on its way, so each of them is looked at again, in an order that no change can slip through
(docs/decisions/008-verify-by-two-reads.md).
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
from app.control.source_state import SourceStateReader, open_reader
from app.errors import ServerAway
from app.ids import require_user
from app.settings import Settings
from commands.repair import BATCH_USERS, batches_of_users, merge_by_user, publish_repairs, recheck, unique_users
from commands.verify.mysql_copy import MysqlCopy
from commands.worker_client import WorkerClient, open_worker_client
from domain.differences import PurchaseDifference, differences, is_unchanged
from domain.purchases import Purchase
from domain.values import rfc3339
from source import snapshot, user_rows
from source.mysql import connect, read_server_name, read_server_time
from source.publisher import open_publisher

#: How long the source may need to publish what is committed.
PATIENCE_S = 60
#: How long a source that has just been started may need until it says how it stands.
START_S = 5
AGAIN_AFTER_S = 0.2
#: No row is ordered so late (microseconds).
NEVER = 2**63


@dataclass
class VerifyOutcome:
    """What a verification has found. `deferred` are purchases that changed each time when they were looked at."""

    rows: int = 0
    users: int = 0
    found: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)
    deferred: int = 0
    #: When the first row was read (microseconds since 1970), where all were.
    began: int | None = None
    seconds: float = 0.0

    @property
    def left(self) -> int:
        """Differences that there are still."""
        return self.found.total() - self.repaired

    @property
    def repaired(self) -> int:
        """Differences that are none any more."""
        return self.mended.total()

    def shown(self) -> dict[str, object]:
        """The same for people and programs."""
        return {
            "rows": self.rows, "users": self.users, "differences": self.found.total(), **self.found,
            "repaired": self.repaired, "deferred": self.deferred, "seconds": round(self.seconds, 1),
        }  # fmt: skip


@dataclass(frozen=True)
class VerifyOptions:
    """What to verify: these users, or all; how fast the database is read, and what is done about differences."""

    users: tuple[str, ...] = ()
    repair: bool = False
    rows_per_s: int = 0
    worker: str | None = None
    resume: bool = True


async def verify_tables(
    settings: Settings,
    asked: VerifyOptions,
    found: Callable[[PurchaseDifference], None],
    progress: Callable[[int, int], None] = lambda rows, total: None,
) -> VerifyOutcome:
    """Compare, tell `found` each difference, and repair them if that is asked for.

    Raises ServerAway, BadSource; then nothing that was told is wrong, but not everything was compared.
    """
    for user in asked.users:
        require_user(user)
    outcome, began = VerifyOutcome(), time.monotonic()
    async with open_reader(settings) as told, open_worker_client(settings, asked.worker) as tables:
        one = _Verification(settings, told, tables, outcome, found, asked.repair)
        users = unique_users(asked.users) if asked.users else one.suspects(asked, progress)
        async for some in batches_of_users(users, BATCH_USERS):
            await one.look_again(some)
        if outcome.began is not None:
            await _remember(settings, told, outcome)
    outcome.users += len(asked.users)
    outcome.seconds = time.monotonic() - began
    return outcome


class _Verification:
    def __init__(
        self, settings: Settings, told: SourceStateReader, tables: WorkerClient, outcome: VerifyOutcome,
        found: Callable[[PurchaseDifference], None], mends: bool,
    ) -> None:  # fmt: skip
        self._settings, self._told, self._tables, self._outcome = settings, told, tables, outcome
        self._found, self._mends = found, mends
        taken = told.states.snapshot
        self._horizon = source_state.horizon_microseconds(taken.horizon if taken else source_state.MAX_HORIZON)

    async def suspects(self, asked: VerifyOptions, progress: Callable[[int, int], None]) -> AsyncIterator[str]:
        """The users whom the table and the database do not say the same of, read at any two moments."""
        with closing(MysqlCopy(self._settings, asked.resume)) as copy:
            began = copy.began
            await copy.fill(asked.rows_per_s, progress)
            self._outcome.rows = copy.rows
            for partition in range(self._settings.partitions):
                async for user, rows, registers in merge_by_user(
                    copy.users(partition), self._tables.read_users(partition)
                ):
                    self._outcome.users += 1
                    if differences(user, rows, registers, self._expected_since(user)):
                        yield user
            copy.forget()
        self._outcome.began = began

    async def look_again(self, users: list[str]) -> None:
        """Tell what really differs of these users, and mend it."""
        repair = self._repair if self._mends else None
        self._outcome.deferred += await recheck(users, self._bracket, self._tell, repair)

    def _tell(self, one: PurchaseDifference) -> None:
        self._outcome.found[one.kind] += 1
        self._found(one)

    async def _bracket(
        self, users: list[str]
    ) -> tuple[list[PurchaseDifference], list[PurchaseDifference], Callable[[PurchaseDifference], int]]:
        """Differences that are real, those that may be on their way, and a version older than any later change.

        1. Read the table. 2. Read the database. 3. Wait until all that was committed up to then is published and
        applied. 4. Read the table again. A purchase that the table knows the same of in 1 and 4 was not changed by
        the stream in between, and the stream has said its last word of what 2 has seen.
        """
        # 1.
        before = await self._tables.read_purchases(users)
        # 2.
        version, rows, moment = await asyncio.to_thread(_database, self._settings, users)
        # 3. and 4.
        after = await self._tables.read_purchases(users, await self._published(moment))
        confirmed, touched = [], []
        for user in users:
            for one in differences(user, rows[user], after[user], self._expected_since(user)):
                (confirmed if is_unchanged(one, before[user]) else touched).append(one)
        return confirmed, touched, lambda one: version

    def _expected_since(self, user: str) -> int | None:
        """Rows ordered before that may be missing: all of a user who was erased, whom no row brings back."""
        return NEVER if user in self._tables.erasure_versions else self._horizon

    async def _published(self, moment: int) -> dict[int, int]:
        """Offsets of `orders` below which everything lies that was committed before `moment` (microseconds)."""
        began = time.monotonic()
        while True:
            await self._told.catch_up()
            said = self._told.states.status
            waited = time.monotonic() - began
            if said is not None and said.as_of is not None and said.as_of >= moment:
                return said.offsets
            silent = said is None or (moment - said.written_at) / 1e6 + waited > source_state.STATUS_TIMEOUT_S
            if silent and waited > START_S:
                raise ServerAway("no source is running, so what is on its way cannot be told: start `lately source`")
            if waited > PATIENCE_S:
                known = "an unknown moment" if said.as_of is None else rfc3339(said.as_of)
                raise ServerAway(f"the source has published up to {known} only: `lately source status` says more")
            await asyncio.sleep(AGAIN_AFTER_S)

    async def _repair(self, found: list[PurchaseDifference], version: Callable[[PurchaseDifference], int]) -> None:
        """Publish what makes the table right, and wait until it is applied."""
        server = await asyncio.to_thread(_server, self._settings)
        source = f"/mysql/{server}/{self._settings.mysql_database}/{self._settings.source_table}"
        mended = await publish_repairs(self._settings, self._tables, found, version, source)
        self._outcome.mended.update(one.kind for one in mended)


async def _remember(settings: Settings, told: SourceStateReader, outcome: VerifyOutcome) -> None:
    """Tell the workers up to when their answers are proven."""
    before = told.states.verified
    clean_at = outcome.began if not outcome.left else before.clean_at if before else None
    left = outcome.found - outcome.mended
    async with open_publisher(settings) as publisher:
        await publisher.write_states(
            source_state.VerifyResult(began_at=outcome.began, clean_at=clean_at, differences=dict(left))
        )


def _database(settings: Settings, users: list[str]) -> tuple[int, dict[str, list[Purchase]], int]:
    """A version older than any change after this, the rows of these users, and a moment after they were read."""
    try:
        with closing(connect(settings)) as connection:
            version = snapshot.snapshot_version(connection, settings)
            rows = user_rows.read_purchases(connection, settings, users)
            return version, rows, read_server_time(connection)
    except mysql.connector.Error as exc:
        raise ServerAway(f"MySQL did not answer ({exc}): try again") from None


def _server(settings: Settings) -> str:
    with closing(connect(settings)) as connection:
        return read_server_name(connection)
