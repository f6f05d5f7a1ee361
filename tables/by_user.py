"""by_user: user id -> newest purchases; user id, zero byte, purchase -> each other purchase."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TypeVar

from app import metrics
from app.core import app, orders, settings
from app.services.source_status import Freshness, SourceStatus
from chunks import Chunk, TableReader, Watch
from domain import purchases
from domain.events import Event, UserErased, read_events
from domain.pages import PagePosition, PurchaseFilter
from domain.purchases import PriceChange, Purchase, PurchaseChange

T = TypeVar("T")

ALL_PURCHASES = PurchaseFilter()

#: A value with more purchases than MAX_ENTRIES is trimmed to TRIM_TO.
MAX_ENTRIES = settings.recent_limit + settings.recent_spare
TRIM_TO = settings.recent_limit + settings.recent_spare // 2


def _rebuild(chunk: Chunk) -> None:
    """Apply a chunk of `orders` again; the records that follow from it were sent the first time."""
    apply_events(chunk, list(read_events(chunk.records)), None)


by_user = app.Table(
    "by_user",
    source_topic=orders,
    partitions=settings.partitions,
    watch_key=lambda key: key.partition(b"\x00")[0],
    rebuild=_rebuild,
    help="All purchases of each user, the newest in one value; msgpack, see domain.purchases.RecentPurchases.",
)


def apply_events(
    chunk: Chunk, events: list[tuple[int, bytes, Event]], purchase_changes: list[PurchaseChange] | None
) -> list[PriceChange]:
    """Apply events (offset, user id, event) to the users' purchases; return the price changes.

    Purchases that are added or removed are appended to `purchase_changes`, unless it is None.
    """
    table = chunk.view(by_user)
    values = table.get_many({user for _, user, _ in events})
    price_changes: list[PriceChange] = []
    changed: dict[bytes, bytes | None] = {}
    unchanged = 0
    apply_event, read_overflow, write_overflow = purchases.apply_event, table.get, table.__setitem__
    for offset, user, event in events:
        before = values[user]
        if isinstance(event, UserErased):
            overflow = table.scan(user + b"\x00")
            after = purchases.erase(
                user, before, event.data.version, overflow, write_overflow, price_changes, purchase_changes
            )
        else:
            after = apply_event(
                user, before, event, offset, read_overflow, write_overflow, MAX_ENTRIES, TRIM_TO, price_changes,
                purchase_changes,
            )  # fmt: skip
        if after is not before:
            values[user] = changed[user] = after
        else:
            unchanged += 1
    table.update(changed)
    if unchanged:
        metrics.DUPLICATES.inc(unchanged)
    return price_changes


class ByUserReader:
    """Reads the purchases of users.

    Each method raises ClosedPartition for a partition that is not open here.
    """

    def __init__(self, table: TableReader, source_status: SourceStatus) -> None:
        self._table, self._source_status = table, source_status

    def purchases(
        self,
        user_id: str,
        partition: int,
        purchase_filter: PurchaseFilter = ALL_PURCHASES,
        after: PagePosition | None = None,
        limit: int | None = None,
    ) -> list[Purchase]:
        """Return the purchases of a user that match the filter and follow `after`, newest first.

        `limit` None: all of them. A user without events has no purchases.
        """

        def is_selected(purchase: Purchase) -> bool:
            return purchase_filter.matches(purchase) and (after is None or purchase.sort_key < after.sort_key)

        predicate = is_selected if after is not None or purchase_filter != ALL_PURCHASES else None
        return self._read_consistently(
            user_id,
            partition,
            lambda value, overflow: purchases.newest_purchases(
                value, overflow, limit, predicate, purchase_filter.since
            ),
        )

    def has_order(self, user_id: str, partition: int, order_id: str) -> bool:
        """Return whether a purchase of this order of the user was applied."""
        return self._read_consistently(
            user_id, partition, lambda value, overflow: purchases.has_order(value, overflow, order_id)
        )

    def registers(self, user_id: str, partition: int) -> list[Purchase]:
        """Return all registers of a user, of removed purchases too, in no order."""
        return self._read_consistently(
            user_id, partition, lambda value, overflow: purchases.all_purchases(value, overflow())
        )

    def product_names(self, user_id: str, partition: int) -> list[str]:
        """Return the distinct products of a user, the newest first."""
        return purchases.product_names(self.purchases(user_id, partition))

    def watch(self, user_id: str, partition: int) -> AbstractContextManager[Watch]:
        """Watch the purchases of a user."""
        return self._table.watch(partition, user_id.encode())

    def position(self, partition: int) -> int | None:
        """Return the first offset of `orders` that is not applied yet; None when no offset is."""
        return self._table.position(partition)

    def freshness(self, partition: int) -> Freshness:
        """Return how fresh the purchases of the users of a partition are."""
        return self._source_status.freshness(partition, self._table.position(partition))

    def _read_consistently(
        self, user_id: str, partition: int, compute: Callable[[bytes | None, Callable[[], Iterable[bytes]]], T]
    ) -> T:
        """Return the result of `compute` for a user's value and a reader of the overflow."""
        user = user_id.encode()
        table = self._table
        scans = 0

        def read_overflow() -> Iterable[bytes]:
            nonlocal scans
            scans += 1
            return (value for _, value in table.scan(partition, user + b"\x00"))

        while True:
            scans_before, value = scans, table.read(partition, user)
            result = compute(value, read_overflow)
            # A purchase that moved between the value and the overflow during the reads was seen
            # twice, or missed.
            if scans == scans_before or table.read(partition, user) == value:
                return result
