"""`lately trace`: the life of an order, from the shop's row to what a worker shows.

Nothing is searched for. Where the event of a purchase lies is written in the table beside the purchase; where that was
committed follows from the time at which it was published.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec

from app.control import source_state
from app.kafka import dead_letter_topic
from app.kafka.records import TopicRecords
from app.settings import Settings
from app.topics import Topics
from domain.diagnosis import DIFFERENT, DeadLetterSummary, Evidence, PendingChange, ShopRow, diagnose, summarize
from domain.events import is_valid_user_id, read_references
from domain.partitioning import partition_of
from domain.purchases import Purchase
from domain.values import rfc3339
from source import order_lookup
from source.order_stages import Stage, read_stages

#: Dead letters that are looked at, of each partition.
MAX_DEAD_LETTERS = 1_000

#: A user -> the offset of `orders` below which all is applied, and all that is known of the user's purchases.
Known = Callable[[str], Awaitable[tuple[int, list[Purchase]]]]
Told = Callable[[], Awaitable[source_state.States]]


class OrderOwner(NamedTuple):
    """Whose order it is, its rows, its changes that wait in the outbox, and dead letters where these were looked at."""

    user_id: str | None
    rows: list[ShopRow]
    waiting: list[PendingChange]
    letters: list[dead_letter_topic.DeadLetter] | None


@dataclass(frozen=True)
class OrderTrace:
    """What was found of an order, or of one purchase of it (`product_name`), and what it comes to."""

    outcome: str
    diagnosis: str
    shown: dict[str, object]


class Tracer:
    """Looks at one order after the other; `known` asks the table, `told` what the source says of itself.

    `read` calls what reads MySQL.
    """

    def __init__(
        self, settings: Settings, log: TopicRecords, known: Known, told: Told, read: Callable = asyncio.to_thread
    ) -> None:
        self._settings, self._log, self._known, self._told, self._read = settings, log, known, told, read
        self._orders = Topics(settings).orders.name

    async def find_owner(self, order_id: str) -> OrderOwner:
        """Whose order it is, by the shop's table, by its outbox, or by a dead letter. Raises ServerAway, BadSource."""
        rows, waiting = await self._read(lambda: order_lookup.find_order(self._settings, order_id))
        user = next((one.user_id for one in [*rows, *waiting]), None)
        letters = None
        if user is None:
            letters = await self._letters(order_id)
            user = next((dead_letter_topic.to_text(one.key) for one in letters if one.key), None)
        return OrderOwner(user if user is not None and is_valid_user_id(user) else None, rows, waiting, letters)

    async def trace_order(self, order_id: str, user_id: str | None = None, only: bool = False) -> OrderTrace:
        """The life of an order as of now; with `only` nothing is told of other users who have or had it.

        1. The database. 2. The table, which may have become newer meanwhile. 3. The event of each purchase, and its
        commit. 4. Only where something is not as it should be: where the partition ends, what the source says of
        itself, the dead letters. Raises ServerAway, BadSource.
        """
        began, before = time.monotonic(), self._log.fetch_count
        # 1.
        found, rows, waiting, letters = await self.find_owner(order_id)
        user = user_id or found
        if only:
            rows, waiting = ([one for one in some if one.user_id == user] for some in (rows, waiting))
            letters = None
        position, mine = 0, {}
        if user is not None:
            # 2.
            position, registers = await self._known(user)
            mine = {one.product_name: one for one in registers if str(one.order_id) == order_id}
        purchases = []
        for product in dict.fromkeys([*mine, *(one.product_name for one in [*rows, *waiting])]) or [None]:
            evidence = Evidence(user, _of(rows, product), _of(waiting, product), purchase=mine.get(product))
            # 3. and 4.
            purchases.append(await self._purchase(evidence, order_id, product, position, letters, only))
        outcome, said = summarize([(one.shown["product_name"], one.outcome, one.diagnosis) for one in purchases])
        return OrderTrace(outcome, said, {
            "order_id": order_id, "user_id": user, "outcome": outcome, "diagnosis": said,
            "purchases": [one.shown for one in purchases if one.shown["product_name"] is not None],
            "meta": {"records_fetched": self._log.fetch_count - before,
                     "took_ms": round((time.monotonic() - began) * 1000, 1)},
        })  # fmt: skip

    async def _purchase(
        self, one: Evidence, order_id: str, product: str | None, position: int,
        letters: list[dead_letter_topic.DeadLetter] | None, only: bool,
    ) -> OrderTrace:  # fmt: skip
        passed: list[Stage] = []
        if one.purchase is not None:
            # 3.
            passed = await read_stages(self._log, self._settings, one.user_id, one.purchase)
            applied = passed[2]["us"] if len(passed) == 3 else None
            one = replace(one, event_type=passed[0]["type"] if passed else None, applied_at=applied)
        outcome, said = diagnose(one)
        if outcome == DIFFERENT or one.purchase is None:
            # 4.
            letters = await self._letters(order_id, one.user_id if only else None) if letters is None else letters
            outcome, said = diagnose(await self._explained(one, letters, position))
        return OrderTrace(outcome, said, {
            "product_name": product, "outcome": outcome, "diagnosis": said,
            "version": one.purchase.version if one.purchase else None,
            "stages": [_timed(stage, before) for stage, before in zip(passed, [None, *passed], strict=False)],
        })  # fmt: skip

    async def _explained(self, one: Evidence, letters: list[dead_letter_topic.DeadLetter], position: int) -> Evidence:
        """The same evidence with what explains that a purchase is not shown as the database has it."""
        told = await self._told()
        taken, status = told.get(source_state.SNAPSHOT), told.get(source_state.STATUS)
        lag = 0
        if one.user_id is not None:
            partition = partition_of(one.user_id.encode(), self._settings.partitions)
            lag = max(await self._log.end_offset(self._orders, partition) - position, 0)
        return replace(
            one, lag=lag,
            dead_letter=next(
                (DeadLetterSummary(one.id, one.reason, one.message) for one in reversed(letters)), None
            ),
            horizon=source_state.horizon_microseconds(taken.horizon if taken else source_state.MAX_HORIZON),
            is_source_running=status is not None
            and time.time() - status.written_at / 1e6 < source_state.STATUS_TIMEOUT_S,
        )  # fmt: skip

    async def _letters(self, order_id: str, user_id: str | None = None) -> list[dead_letter_topic.DeadLetter]:
        """The newest dead letters that speak of the order, or of those only the user's."""
        name = msgspec.json.encode(order_id)

        def wanted(one: dead_letter_topic.DeadLetter) -> bool:
            return user_id in (None, dead_letter_topic.to_text(one.key)) and _speaks_of(
                one.value or b"", order_id, name
            )

        return await dead_letter_topic.find_letters(self._settings, wanted, MAX_DEAD_LETTERS)


def _speaks_of(value: bytes, order_id: str, name: bytes) -> bool:
    """Whether a dead letter is about the order; one that is no document at all may be if it has the id in quotes."""
    known, _ = read_references(value)
    return name in value if known is None else str(known) == order_id


def _of(found: list, product: str | None):
    return next((one for one in found if one.product_name == product), None)


def _timed(stage: Stage, before: Stage | None) -> dict[str, object]:
    """A stage with its time as text, and the milliseconds since the one before."""
    rest = {name: value for name, value in stage.items() if name not in ("stage", "us")}
    ms = None if before is None else round((stage["us"] - before["us"]) / 1000, 1)
    return {"stage": stage["stage"], "at": rfc3339(stage["us"]), "ms": ms, **rest}
