"""`lately replay`: do the tables say what the events in `orders` add up to?

The events are folded once more, into a shadow of the table by_user. What differs there is looked at again, between
two reads of the table, as `lately verify` does it (docs/decisions/008-verify-by-two-reads.md); and only that is mended,
by events, so that totals, similar products and standbys follow.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from app.control.generation import require_active_generation
from app.errors import ServerAway
from app.ids import require_user
from app.kafka.client import client_options
from app.kafka.order_log import EventSelection, OrderLog, open_order_log
from app.settings import Settings
from app.topics import MAX_REQUEST_BYTES, Topics
from commands.repair import BATCH_USERS, batches_of_users, merge_by_user, publish_repairs, recheck, unique_users
from commands.replay.replay_table import ReplayTable
from commands.worker_client import WorkerClient, open_worker_client
from domain.differences import PurchaseDifference, find_differences, is_unchanged
from domain.errors import UnreadableEvent
from domain.events import ERASED, read_event
from domain.purchases import Purchase

#: What an event that was published again names as its origin.
HEADER = "lately.replay"
SOURCE = "/lately/replay"


@dataclass
class ReplayOutcome:
    """What a replay has found. `whole` is whether nothing came before the part, so that `extra` could be told."""

    events: int = 0
    users: int = 0
    whole: bool = True
    found: Counter[str] = field(default_factory=Counter)
    mended: int = 0
    deferred: int = 0
    seconds: float = 0.0

    @property
    def left(self) -> int:
        """Differences that there are still."""
        return self.found.total() - self.mended

    def shown(self) -> dict[str, object]:
        """The same for people and programs."""
        return {
            "events": self.events, "users": self.users, "whole": self.whole, "differences": self.found.total(),
            **self.found, "mended": self.mended, "deferred": self.deferred, "seconds": round(self.seconds, 1),
        }  # fmt: skip


async def replay_events(
    settings: Settings,
    part: EventSelection,
    found: Callable[[PurchaseDifference], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
    dry_run: bool = False,
    worker: str | None = None,
) -> ReplayOutcome:
    """Fold the part into a shadow, tell `found` what the table has otherwise, and mend that. Raises ServerAway."""
    _check(part)
    outcome, began = ReplayOutcome(), time.monotonic()
    async with open_order_log(settings) as log, open_worker_client(settings, worker) as tables:
        for partition, (first, whole) in (await log.start_offsets(part)).items():
            outcome.whole = outcome.whole and whole
            shadow, done = ReplayTable(settings, part, partition), False
            try:
                await shadow.fold(log, first, progress)
                one = _Comparison(settings, part, log, tables, outcome, found, not dry_run)
                await one.run(shadow, partition, first, whole)
                done = True
            finally:
                outcome.events += shadow.events
                shadow.close(done)
    outcome.seconds = time.monotonic() - began
    return outcome


def _check(part: EventSelection) -> None:
    if part.user is not None:
        require_user(part.user)


class _Comparison:
    def __init__(
        self, settings: Settings, part: EventSelection, log: OrderLog, tables: WorkerClient, outcome: ReplayOutcome,
        found: Callable[[PurchaseDifference], None], mends: bool,
    ) -> None:  # fmt: skip
        self._settings, self._part, self._log, self._tables = settings, part, log, tables
        self._outcome, self._found, self._mends = outcome, found, mends

    async def run(self, shadow: ReplayTable, partition: int, first: int, whole: bool) -> None:
        """Compare a partition."""
        bracket = partial(self._bracket, shadow, partition, first, whole)
        repair = self._repair if self._mends else None
        async for users in batches_of_users(self._suspects(shadow, partition, whole), BATCH_USERS):
            self._outcome.deferred += await recheck(users, bracket, self._tell, repair)

    async def _suspects(self, shadow: ReplayTable, partition: int, whole: bool) -> AsyncIterator[str]:
        if self._part.user is not None:
            users = unique_users([self._part.user])
        elif self._part.order is not None or not whole:
            users = unique_users(user.decode() for user, _ in shadow.users())
        else:
            async for user in self._different(shadow, partition):
                yield user
            return
        async for user in users:
            self._outcome.users += 1
            yield user

    async def _different(self, shadow: ReplayTable, partition: int) -> AsyncIterator[str]:
        """The users whom shadow and table, read at any two moments, do not say the same of."""
        async for user, rows, registers in merge_by_user(shadow.users(), self._tables.read_users(partition)):
            self._outcome.users += 1
            if self._differences(user, rows, registers, whole=True):
                yield user

    async def _bracket(
        self, shadow: ReplayTable, partition: int, first: int, whole: bool, users: list[str]
    ) -> tuple[list[PurchaseDifference], list[PurchaseDifference], Callable[[PurchaseDifference], int]]:
        """Differences that are real, those that may be on their way, and the version that the log has of a purchase.

        1. Read the table. 2. Fold what the log has by now. 3. Wait until the table has applied that, and read it again.
        What the table knows the same in 1 and 3 comes from events that 2 has seen, and nothing newer is known of it.
        """
        # 1.
        before = await self._tables.read_purchases(users)
        # 2.
        end = await shadow.fold(self._log, first)
        # 3.
        after = await self._tables.read_purchases(users, {partition: end})
        confirmed, touched = [], []
        for user in users:
            for one in self._differences(user, shadow.registers(user), after[user], whole):
                (confirmed if is_unchanged(one, before[user]) else touched).append(one)
        return confirmed, touched, lambda one: 0 if one.row is None else one.row.version

    def _tell(self, one: PurchaseDifference) -> None:
        self._outcome.found[one.kind] += 1
        self._found(one)

    async def _repair(self, found: list[PurchaseDifference], version: Callable[[PurchaseDifference], int]) -> None:
        self._outcome.mended += len(await publish_repairs(self._settings, self._tables, found, version, SOURCE))

    def _differences(
        self, user: str, folded: list[Purchase], registers: list[Purchase], whole: bool
    ) -> list[PurchaseDifference]:
        """What differs, of the purchases that the part decides: its newest event lies there."""
        known = {one.identity: one for one in folded}
        if self._part.order is not None:
            registers = [one for one in registers if str(one.order_id) == self._part.order]
        found = find_differences(user, [one for one in folded if one.live], registers, None)
        if whole:
            return found
        return [
            one
            for one in found
            if one.identity in known and (one.purchase is None or one.purchase.version <= known[one.identity].version)
        ]


async def republish_events(
    settings: Settings, part: EventSelection, progress: Callable[[int, int], None] = lambda done, total: None,
    dry_run: bool = False,
) -> int:  # fmt: skip
    """Publish the events of the part once more, unchanged, at the end of `orders`; how many these were.

    That changes nothing where nothing was wrong: of each purchase the newest version counts. Raises ServerAway.
    """
    _check(part)
    topic, published = Topics(settings).orders.name, 0
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False, isolation_level="read_committed")
    producer = AIOKafkaProducer(**client_options(settings), enable_idempotence=True, max_request_size=MAX_REQUEST_BYTES)
    try:
        async with open_order_log(settings) as log:
            begins = {number: first for number, (first, _) in (await log.start_offsets(part)).items()}
            ends = {number: await log.end_offset(number) for number in begins}
        await consumer.start()
        await producer.start()
        async with require_active_generation(settings):
            for number, first in begins.items():
                async for records in _records(consumer, TopicPartition(topic, number), first, ends[number]):
                    chosen = [one for one in records if _chosen(part, one)]
                    published += len(chosen)
                    sent = []
                    for one in () if dry_run else chosen:
                        origin = (HEADER, f"{topic}[{number}]@{one.offset}".encode())
                        headers = [*((name, value) for name, value in one.headers if name != HEADER), origin]
                        sent.append(await producer.send(topic, one.value, one.key, partition=number, headers=headers))
                    await asyncio.gather(*sent)
                    progress(records[-1].offset + 1, ends[number])
    except (KafkaError, OSError) as exc:
        raise ServerAway(
            f"Kafka at {settings.kafka} did not answer ({exc!r}): run it again, repeats are harmless"
        ) from None
    finally:
        await asyncio.gather(consumer.stop(), producer.stop())
    return published


async def _records(consumer: AIOKafkaConsumer, tp: TopicPartition, first: int, end: int) -> AsyncIterator[list]:
    """The records of a partition from `first` up to, not including, `end`."""
    consumer.assign([tp])
    consumer.seek(tp, first)
    while await consumer.position(tp) < end:
        records = (await consumer.getmany(tp, timeout_ms=1_000, max_records=5_000)).get(tp, [])
        if records := [one for one in records if one.offset < end]:
            yield records


def _chosen(part: EventSelection, record) -> bool:
    """Whether a record belongs to the part; one that cannot be read is a dead letter already."""
    if part.user is not None and record.key != part.user.encode():
        return False
    try:
        event = read_event(record.key, record.value)
    except UnreadableEvent:
        return False
    return part.order is None or (event.type != ERASED and str(event.data.order_id) == part.order)
