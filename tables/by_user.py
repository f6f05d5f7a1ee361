"""by_user: user id -> the user's newest purchases; user id, zero byte, purchase -> each of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TypeVar

from app import metrics
from app.core import app, orders, settings
from app.services.source_status import Freshness
from chunks import Chunk, Watch
from domain import purchases
from domain.events import ERASED, Event, read_events
from domain.pages import PagePosition, PurchaseFilter

T = TypeVar("T")


def _rebuild(chunk: Chunk) -> None:
    """Remember the purchases of a chunk; what follows from them was sent when they were read first."""
    remember(chunk, list(read_events(chunk.records)), None)


by_user = app.Table(
    "by_user",
    source_topic=orders,
    partitions=settings.partitions,
    watch_key=lambda key: key.partition(b"\x00")[0],
    rebuild=_rebuild,
    help="All purchases of each user, the newest in one value; msgpack, see domain.purchases.Recent.",
)

ALL = PurchaseFilter()

#: A value is cut when it holds more purchases than the first number, to the second.
MOST = settings.recent_limit + settings.recent_spare
LEAST = settings.recent_limit + settings.recent_spare // 2


def shown(user_id: str, partition: int, limit: int) -> list[purchases.Purchase]:
    """A user's newest purchases; a user never seen has none. The partition must be owned here."""
    return known(user_id, partition, ALL, None, limit)


def known(
    user_id: str, partition: int, wanted: PurchaseFilter, after: PagePosition | None, limit: int | None = None
) -> list[purchases.Purchase]:
    """Of the user's purchases that are wanted and come after a mark the newest `limit`, or all, newest first.

    Raises ClosedPartition.
    """

    def admits(one: purchases.Purchase) -> bool:
        return wanted.matches(one) and (after is None or one.sort_key < after.sort_key)

    chosen = admits if after is not None or wanted != ALL else None
    return _at_one_moment(
        user_id, partition, lambda value, others: purchases.newest_purchases(value, others, limit, chosen, wanted.since)
    )


def knows_order(user_id: str, partition: int, order_id: str) -> bool:
    """Whether a purchase of this order of the user has arrived. Raises ClosedPartition."""
    return _at_one_moment(user_id, partition, lambda value, others: purchases.has_order(value, others, order_id))


def registers(user_id: str, partition: int) -> list[purchases.Purchase]:
    """All that is known of the user's purchases, removed ones too, in no order. Raises ClosedPartition."""
    return _at_one_moment(user_id, partition, lambda value, others: purchases.all_purchases(value, others()))


def watch(user_id: str, partition: int) -> AbstractContextManager[Watch]:
    """Watch the user's purchases. Raises ClosedPartition."""
    return by_user.watch(partition, user_id.encode())


def freshness(partition: int) -> Freshness:
    """How fresh what this table says of a partition's users is. Raises ClosedPartition."""
    return app.source_status.freshness(partition, by_user.position(partition))


def _at_one_moment(user_id: str, partition: int, fold: Callable[[bytes | None, Callable[[], Iterable[bytes]]], T]) -> T:
    """What `fold` makes of the user's value and the values beside it."""
    user = user_id.encode()
    scans = 0

    def others() -> Iterable[bytes]:
        nonlocal scans
        scans += 1
        return (other for _, other in by_user.scan(partition, user + b"\x00"))

    while True:
        before, value = scans, by_user.read(partition, user)
        folded = fold(value, others)
        # A purchase that moved from one to the other between the two reads was seen twice, or not at all.
        if scans == before or by_user.read(partition, user) == value:
            return folded


def products(user_id: str, partition: int) -> list[str]:
    """All products that a user has, each once, the one bought last first. Raises ClosedPartition."""
    return list(dict.fromkeys(one.product_name for one in known(user_id, partition, ALL, None)))


def remember(
    chunk: Chunk, events: list[tuple[int, bytes, Event]], changes: list[purchases.PurchaseChange] | None
) -> list[purchases.PriceChange]:
    """Add the events, each with its offset and user id, to the users' purchases; what that changed about each purchase.

    What is bought from now on, or not any more, is appended to `changes`, where they are given.
    """
    table = chunk.view(by_user)
    values = table.get_many({user for _, user, _ in events})
    differences: list[purchases.PriceChange] = []
    changed: dict[bytes, bytes | None] = {}
    unchanged = 0
    fold, earlier, forget = purchases.apply_event, table.get, table.__setitem__
    for offset, user, event in events:
        before = values[user]
        if event.type == ERASED:
            others = table.scan(user + b"\x00")
            after = purchases.erase(user, before, event.data.version, others, forget, differences, changes)
        else:
            after = fold(user, before, event, offset, earlier, forget, MOST, LEAST, differences, changes)
        if after is not before:
            values[user] = changed[user] = after
        else:
            unchanged += 1
    table.update(changed)
    if unchanged:
        metrics.DUPLICATES.inc(unchanged)
    return differences
