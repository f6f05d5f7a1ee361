"""Trace of an order from the shop's row to the table of a worker.

No topic is searched. The table stores the offset of a purchase's event together with the purchase,
and the commit is found by the time at which the event was published.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from app.control import source_state
from app.control.source_state import SourceStates
from app.kafka import dead_letter_topic
from app.kafka.dead_letter_topic import DeadLetter
from app.kafka.records import TopicRecords
from app.settings import Settings
from app.topics import Topics
from domain.diagnosis import DIFFERENT, DeadLetterSummary, Evidence, PendingChange, ShopRow, diagnose, summarize
from domain.events import is_valid_user_id, read_references
from domain.partitioning import partition_of
from domain.purchases import Purchase
from domain.values import rfc3339
from source import order_lookup
from source.mysql import Borrow
from source.order_stages import OrderStage, PurchaseStages, read_stages

#: Number of dead letters to examine, of each partition.
MAX_DEAD_LETTERS = 1_000

T = TypeVar("T")
_ProductT = TypeVar("_ProductT", ShopRow, PendingChange)

#: A user -> the offset of `orders` below which all events are applied, and all known purchases of
#: the user.
ReadPurchases = Callable[[str], Awaitable[tuple[int, list[Purchase]]]]
ReadStates = Callable[[], Awaitable[SourceStates]]


class RunInThread(Protocol):
    """Runs a function that reads MySQL in a thread, as `asyncio.to_thread` does."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """Return the function's result."""


class OrderOwner(NamedTuple):
    """The user of an order, its rows and pending changes, and its dead letters (None: not read)."""

    user_id: str | None
    rows: list[ShopRow]
    pending: list[PendingChange]
    dead_letters: list[DeadLetter] | None


@dataclass(frozen=True)
class OrderTrace:
    """Result of a trace: the outcome, the diagnosis as a sentence, and the document for JSON."""

    outcome: str
    diagnosis: str
    document: dict[str, object]


@dataclass(frozen=True)
class _PurchaseTrace:
    """Result for one purchase of an order; `product_name` is None when no purchase was found."""

    product_name: str | None
    outcome: str
    diagnosis: str
    version: int | None
    stages: tuple[OrderStage, ...]

    def to_document(self) -> dict[str, object]:
        """Return the document for JSON."""
        previous = (None, *self.stages)
        return {
            "product_name": self.product_name, "outcome": self.outcome, "diagnosis": self.diagnosis,
            "version": self.version,
            "stages": [_stage_document(stage, before) for stage, before in zip(self.stages, previous, strict=False)],
        }  # fmt: skip


class Tracer:
    """Traces orders.

    It reads purchases from the table, states of the source, and rows of the shop's database.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        records: TopicRecords,
        read_purchases: ReadPurchases,
        read_states: ReadStates,
        run_in_thread: RunInThread = asyncio.to_thread,
        borrow: Borrow | None = None,
    ) -> None:
        self._settings, self._topics, self._records = settings, topics, records
        self._read_purchases, self._read_states, self._run_in_thread = read_purchases, read_states, run_in_thread
        self._borrow = borrow

    async def find_owner(self, order_id: str) -> OrderOwner:
        """Find the user of an order in the shop's table, the outbox, or the dead letters.

        Raises ServerAway, BadSource.
        """
        rows, pending = await self._run_in_thread(
            lambda: order_lookup.find_order(self._settings, order_id, self._borrow)
        )
        entries: list[ShopRow | PendingChange] = [*rows, *pending]
        user = next((entry.user_id for entry in entries), None)
        letters = None
        if user is None:
            letters = await self._find_dead_letters(order_id)
            user = next((dead_letter_topic.to_text(letter.key) for letter in letters if letter.key), None)
        return OrderOwner(user if user is not None and is_valid_user_id(user) else None, rows, pending, letters)

    async def trace_order(self, order_id: str, user_id: str | None = None, only_user: bool = False) -> OrderTrace:
        """Trace an order; `only_user` omits all facts about other users who have or had the order.

        1. Read the database.
        2. Read the table, which may have become newer in the meantime.
        3. Read the event of each purchase, and its commit.
        4. If a purchase is not as expected: read the end of the partition, open transactions, the
           states of the source and the dead letters.

        Raises ServerAway, BadSource.
        """
        began, fetched_before = time.monotonic(), self._records.fetch_count
        # 1.
        owner, rows, pending, letters = await self.find_owner(order_id)
        user = user_id or owner
        if only_user:
            rows = [row for row in rows if row.user_id == user]
            pending = [change for change in pending if change.user_id == user]
            letters = None
        position = 0
        by_product: dict[str | None, Purchase] = {}
        if user is not None:
            # 2.
            position, purchases = await self._read_purchases(user)
            by_product = {
                purchase.product_name: purchase for purchase in purchases if str(purchase.order_id) == order_id
            }
        shop_products = [*(row.product_name for row in rows), *(change.product_name for change in pending)]
        products = list(dict.fromkeys([*by_product, *shop_products])) or [None]
        traces = []
        for product in products:
            row, change = _find_product(rows, product), _find_product(pending, product)
            evidence = Evidence(user, row, change, purchase=by_product.get(product))
            # 3. and 4.
            traces.append(await self._trace_purchase(evidence, order_id, product, position, letters, only_user))
        outcome, diagnosis = summarize([(trace.product_name, trace.outcome, trace.diagnosis) for trace in traces])
        return OrderTrace(outcome, diagnosis, {
            "order_id": order_id, "user_id": user, "outcome": outcome, "diagnosis": diagnosis,
            "purchases": [trace.to_document() for trace in traces if trace.product_name is not None],
            "meta": {"records_fetched": self._records.fetch_count - fetched_before,
                     "took_ms": round((time.monotonic() - began) * 1000, 1)},
        })  # fmt: skip

    async def _trace_purchase(
        self, evidence: Evidence, order_id: str, product: str | None, position: int,
        letters: list[DeadLetter] | None, only_user: bool,
    ) -> _PurchaseTrace:  # fmt: skip
        purchase, path = evidence.purchase, PurchaseStages()
        if purchase is not None and evidence.user_id is not None:
            # 3.
            partition = self._partition(evidence.user_id)
            path = await read_stages(self._records, self._topics, evidence.user_id, partition, purchase)
            evidence = replace(evidence, event_type=path.event_type, applied_at=path.applied_at)
        outcome, diagnosis = diagnose(evidence)
        if outcome == DIFFERENT or purchase is None:
            # 4.
            if letters is None:
                letters = await self._find_dead_letters(order_id, evidence.user_id if only_user else None)
            outcome, diagnosis = diagnose(await self._add_causes(evidence, letters, position))
        version = None if purchase is None else purchase.version
        return _PurchaseTrace(product, outcome, diagnosis, version, path.stages)

    async def _add_causes(self, evidence: Evidence, letters: list[DeadLetter], position: int) -> Evidence:
        """Add facts that explain a difference: lag, dead letters, and the states of the source."""
        states = await self._read_states()
        lag, open_transaction = 0, None
        if evidence.user_id is not None:
            partition = self._partition(evidence.user_id)
            lag = max(await self._records.end_offset(self._topics.orders.name, partition) - position, 0)
            if not lag:
                open_transaction = await self._records.open_transaction(self._topics.orders.name, partition)
        newest = letters[-1] if letters else None
        snapshot, status = states.snapshot, states.status
        horizon = source_state.MAX_HORIZON if snapshot is None else snapshot.horizon
        is_running = status is not None and time.time() - status.written_at / 1e6 < source_state.STATUS_TIMEOUT_S
        return replace(
            evidence,
            lag=lag,
            open_transaction=open_transaction,
            dead_letter=None if newest is None else DeadLetterSummary(newest.id, newest.reason, newest.message),
            horizon=source_state.horizon_microseconds(horizon),
            is_source_running=is_running,
        )

    async def _find_dead_letters(self, order_id: str, user_id: str | None = None) -> list[DeadLetter]:
        """Return the newest dead letters of the order (of one user, if given), oldest first."""
        encoded_id = msgspec.json.encode(order_id)

        def is_selected(letter: DeadLetter) -> bool:
            is_of_user = user_id in (None, dead_letter_topic.to_text(letter.key))
            return is_of_user and _mentions_order(letter.value or b"", order_id, encoded_id)

        return await dead_letter_topic.find_letters(self._settings, is_selected, MAX_DEAD_LETTERS)

    def _partition(self, user_id: str) -> int:
        return partition_of(user_id.encode(), self._settings.partitions)


def _mentions_order(value: bytes, order_id: str, encoded_id: bytes) -> bool:
    """Return whether a dead letter is about the order.

    A value that is not an event is about the order if it contains the id in quotes.
    """
    value_order_id, _ = read_references(value)
    return encoded_id in value if value_order_id is None else str(value_order_id) == order_id


def _find_product(entries: Sequence[_ProductT], product: str | None) -> _ProductT | None:
    return next((entry for entry in entries if entry.product_name == product), None)


def _stage_document(stage: OrderStage, previous: OrderStage | None) -> dict[str, object]:
    """Return a stage for JSON: its time as text, and the milliseconds since the previous stage."""
    ms = None if previous is None else round((stage.time - previous.time) / 1000, 1)
    return {"stage": stage.name, "at": rfc3339(stage.time), "ms": ms, **stage.fields}
