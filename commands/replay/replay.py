"""`lately replay`: compare the table by_user with the result of the events in `orders`.

A first pass applies the events to a second copy of the table. Users with a difference are compared
again, between two reads of the table, as `lately verify` does
(docs/decisions/008-verify-by-two-reads.md). Only confirmed differences are repaired, by events, so
that totals, similar products and standbys follow.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from app.control.generation import require_active_generation
from app.errors import KafkaAway
from app.ids import require_user_id
from app.kafka.client import client_options
from app.kafka.consume import open_consumer, read_partition
from app.kafka.order_log import EventSelection, OrderLog, StartOffset, open_order_log
from app.settings import Settings
from app.topics import MAX_REQUEST_BYTES, Topics
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
from commands.replay.replay_table import ReplayTable
from commands.worker_client import WorkerClient, open_worker_client
from domain.differences import PurchaseDifference, find_differences, is_unchanged
from domain.errors import UnreadableEvent
from domain.events import UserErased, read_event
from domain.purchases import Purchase

#: Header of an event that was published again: its original position, as topic[partition]@offset.
ORIGIN_HEADER = "lately.replay"
#: CloudEvents source of the repairs.
SOURCE = "/lately/replay"
#: Number of events that are sent before their acknowledgements are awaited.
SEND_BATCH = 5_000


@dataclass
class ReplayOutcome:
    """Result of a replay.

    `is_complete` if no event precedes the selection, so that extra purchases are found.
    """

    events: int = 0
    users: int = 0
    is_complete: bool = True
    differences: Counter[str] = field(default_factory=Counter)
    repaired: int = 0
    #: Purchases that changed during each comparison.
    undecided: int = 0
    #: Partition of `orders` -> its first offset, where it is not 0: the events before it are deleted.
    deleted_before: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def remaining(self) -> int:
        """Number of differences that are not repaired."""
        return self.differences.total() - self.repaired

    def to_dict(self) -> dict[str, object]:
        """Return the fields for JSON."""
        return {
            "events": self.events, "users": self.users, "whole": self.is_complete,
            "differences": self.differences.total(), **self.differences, "mended": self.repaired,
            "deferred": self.undecided, "deleted_before": self.deleted_before, "seconds": round(self.seconds, 1),
        }  # fmt: skip


async def replay_events(
    settings: Settings,
    selection: EventSelection,
    report: Callable[[PurchaseDifference], None],
    progress: Callable[[int, int], None] = lambda count, total: None,
    dry_run: bool = False,
    worker: str | None = None,
) -> ReplayOutcome:
    """Apply the selected events to a second table, report each difference, and repair it.

    Raises ServerAway, UnknownTarget, FolderInUse.
    """
    _require_user(selection)
    outcome, started_at = ReplayOutcome(), time.monotonic()
    async with open_order_log(settings) as log, open_worker_client(settings, worker) as worker_client:
        outcome.deleted_before = {number: first for number, first in (await log.first_offsets()).items() if first}
        for partition, start in (await log.start_offsets(selection)).items():
            outcome.is_complete = outcome.is_complete and start.is_first
            table, is_complete = ReplayTable(settings, selection, partition), False
            try:
                await table.apply_events(log, start.offset, progress)
                comparison = _Replay(settings, selection, log, worker_client, outcome, report, not dry_run)
                await comparison.compare_partition(table, partition, start)
                is_complete = True
            finally:
                outcome.events += table.events
                table.close(is_complete)
    outcome.seconds = time.monotonic() - started_at
    return outcome


def _require_user(selection: EventSelection) -> None:
    if selection.user is not None:
        require_user_id(selection.user)


class _Replay:
    def __init__(
        self,
        settings: Settings,
        selection: EventSelection,
        log: OrderLog,
        worker_client: WorkerClient,
        outcome: ReplayOutcome,
        report: Callable[[PurchaseDifference], None],
        repairs: bool,
    ) -> None:
        self._settings, self._selection, self._log, self._worker_client = settings, selection, log, worker_client
        self._outcome, self._report, self._repairs = outcome, report, repairs

    async def compare_partition(self, table: ReplayTable, partition: int, start: StartOffset) -> None:
        """Compare a partition, and repair the confirmed differences."""
        compare = partial(self._compare, table, partition, start)
        repair = self._repair if self._repairs else None
        async for users in batches_of_users(self._find_suspects(table, partition, start.is_first), BATCH_USERS):
            self._outcome.undecided += await recheck(users, compare, self._count, repair)

    async def _find_suspects(self, table: ReplayTable, partition: int, is_complete: bool) -> AsyncIterator[str]:
        if self._selection.user is not None:
            users = unique_users([self._selection.user])
        elif self._selection.order is not None or not is_complete:
            users = unique_users(user.decode() for user, _ in table.read_users())
        else:
            async for user in self._find_differing_users(table, partition):
                yield user
            return
        async for user in users:
            self._outcome.users += 1
            yield user

    async def _find_differing_users(self, table: ReplayTable, partition: int) -> AsyncIterator[str]:
        """Yield the users whose purchases differ between the two copies, each read at any time."""
        actual = self._worker_client.read_users(partition)
        async for user, expected, purchases in merge_by_user(table.read_users(), actual):
            self._outcome.users += 1
            if self._find_differences(user, expected, purchases, is_complete=True):
                yield user

    async def _compare(self, table: ReplayTable, partition: int, start: StartOffset, users: list[str]) -> Comparison:
        """Compare users, with reads that distinguish real differences from events in flight.

        1. Read the workers' table. 2. Apply the events up to the present end of the log. 3. Wait
        until the workers have applied them, and read their table again. If steps 1 and 3 return the
        same purchase, step 2 has applied all its events. A repair has the version that the log
        contains.
        """
        # 1.
        before = await self._worker_client.read_purchases(users)
        # 2.
        end = await table.apply_events(self._log, start.offset)
        # 3.
        after = await self._worker_client.read_purchases(users, {partition: end})
        confirmed: list[PurchaseDifference] = []
        in_flight: list[PurchaseDifference] = []
        for user in users:
            expected = table.read_purchases(user)
            for difference in self._find_differences(user, expected, after[user], start.is_first):
                (confirmed if is_unchanged(difference, before[user]) else in_flight).append(difference)
        return Comparison(
            confirmed, in_flight, lambda difference: 0 if difference.row is None else difference.row.version
        )

    def _count(self, difference: PurchaseDifference) -> None:
        self._outcome.differences[difference.kind] += 1
        self._report(difference)

    async def _repair(self, differences: list[PurchaseDifference], version: RepairVersion) -> None:
        repaired = await publish_repairs(self._settings, self._worker_client, differences, version, SOURCE)
        self._outcome.repaired += len(repaired)

    def _find_differences(
        self, user: str, expected: list[Purchase], actual: list[Purchase], is_complete: bool
    ) -> list[PurchaseDifference]:
        """Find the differences of the purchases whose newest event belongs to the selection."""
        replayed = {purchase.identity: purchase for purchase in expected}
        if self._selection.order is not None:
            actual = [purchase for purchase in actual if str(purchase.order_id) == self._selection.order]
        differences = find_differences(user, [purchase for purchase in expected if purchase.live], actual, None)
        if is_complete:
            return differences
        return [
            difference
            for difference in differences
            if difference.identity in replayed
            and (difference.purchase is None or difference.purchase.version <= replayed[difference.identity].version)
        ]


async def republish_events(
    settings: Settings,
    selection: EventSelection,
    progress: Callable[[int, int], None] = lambda count, total: None,
    dry_run: bool = False,
) -> int:
    """Publish the selected events again, unchanged, at the end of `orders`; return their number.

    Correct tables do not change, because the newest version of each purchase wins. Raises
    ServerAway.
    """
    _require_user(selection)
    topic, published = Topics(settings).orders.name, 0
    async with open_order_log(settings) as log:
        starts = await log.start_offsets(selection)
        ends = {partition: await log.end_offset(partition) for partition in starts}
    producer = AIOKafkaProducer(**client_options(settings), enable_idempotence=True, max_request_size=MAX_REQUEST_BYTES)
    async with open_consumer(settings) as consumer:
        try:
            await producer.start()
            async with require_active_generation(settings):
                for partition, start in starts.items():
                    tp = TopicPartition(topic, partition)
                    async for records in _read_batches(read_partition(consumer, tp, start.offset, ends[partition])):
                        selected = [record for record in records if _is_selected(selection, record)]
                        published += len(selected)
                        if not dry_run:
                            await _send_again(producer, selected)
                        progress(records[-1].offset + 1, ends[partition])
        except (KafkaError, OSError) as exc:
            raise KafkaAway(
                f"Kafka at {settings.kafka} did not answer ({exc!r}): run it again, repeats are harmless"
            ) from None
        finally:
            await producer.stop()
    return published


async def _send_again(producer: AIOKafkaProducer, records: list[ConsumerRecord]) -> None:
    futures = []
    for record in records:
        origin = (ORIGIN_HEADER, f"{record.topic}[{record.partition}]@{record.offset}".encode())
        headers = [*((name, value) for name, value in record.headers if name != ORIGIN_HEADER), origin]
        futures.append(
            await producer.send(record.topic, record.value, record.key, partition=record.partition, headers=headers)
        )
    await asyncio.gather(*futures)


async def _read_batches(records: AsyncIterator[ConsumerRecord]) -> AsyncIterator[list[ConsumerRecord]]:
    batch: list[ConsumerRecord] = []
    async for record in records:
        batch.append(record)
        if len(batch) == SEND_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _is_selected(selection: EventSelection, record: ConsumerRecord) -> bool:
    """Return whether a record belongs to the selection.

    An unreadable record is a dead letter already.
    """
    if selection.user is not None and record.key != selection.user.encode():
        return False
    try:
        event = read_event(record.key, record.value)
    except UnreadableEvent:
        return False
    return selection.order is None or (
        not isinstance(event, UserErased) and str(event.data.order_id) == selection.order
    )
