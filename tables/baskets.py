"""baskets: user id -> newest products; user id, zero byte, product name -> each other product."""

from __future__ import annotations

from functools import partial

from app.core import app, purchase_changes, settings
from app.core import co_purchases as deltas_topic
from app.topics import ORIGIN, origin
from chunks import Chunk, FetchedRecord, Headers, TableView
from domain import co_purchases
from domain.co_purchases import BasketOverflow, DeltaAccumulator
from domain.partitioning import partition_of
from domain.purchases import PurchaseChange
from tables.unreadable import decode_record


def _rebuild(chunk: Chunk) -> None:
    """Apply a chunk of changes again; the deltas that follow from it were sent the first time."""
    for record in chunk.records:
        changes = decode_record(chunk, record, co_purchases.decode_changes, "baskets", bury=False)
        _apply_changes(chunk, changes or [], DeltaAccumulator())


baskets = app.Table(
    "baskets",
    source_topic=purchase_changes,
    partitions=settings.partitions,
    rebuild=_rebuild,
    help="Which products each user counts for; msgpack, see domain.co_purchases.Basket.",
)

#: The number of pairs that are accumulated before they are sent.
MAX_PAIRS = 50_000


def pending_changes(chunk: Chunk) -> list[PurchaseChange]:
    """Return the list to which steps of `orders` append changes; it is sent once a transaction."""
    return chunk.accumulate(list[PurchaseChange], _send_changes)


def _send_changes(chunk: Chunk, changes: list[PurchaseChange]) -> None:
    headers = _origin_headers(chunk)
    for record in co_purchases.encode_changes(changes):
        chunk.send(purchase_changes.get_topic_name(), chunk.tp.partition, None, record, headers)


def _origin_headers(chunk: Chunk) -> Headers:
    """Return headers with the source position of the records to send.

    A dump derives from it the records in flight between two tables.
    """
    return [(ORIGIN, origin(chunk.tp.partition, chunk.next))]


def apply_record(chunk: Chunk, record: FetchedRecord, deltas: DeltaAccumulator) -> None:
    """Apply a record to the users' baskets, and add the changes of products to `deltas`."""
    changes = decode_record(chunk, record, co_purchases.decode_changes, "baskets")
    if changes is None:
        return
    deltas.add_changes(changes)
    _apply_changes(chunk, changes, deltas)
    if deltas.pair_count > MAX_PAIRS:
        send_deltas(chunk, deltas)


def _apply_changes(chunk: Chunk, changes: list[PurchaseChange], deltas: DeltaAccumulator) -> None:
    table = chunk.view(baskets)
    by_user: dict[bytes, list[PurchaseChange]] = {}
    for change in changes:
        by_user.setdefault(change[0].encode(), []).append(change)
    for user, value in table.get_many(by_user).items():
        overflow = _overflow(table, user + b"\x00")
        table[user], before, after = co_purchases.apply_changes(value, by_user[user], overflow)
        deltas.add_basket_change(before, after)


def _overflow(table: TableView, prefix: bytes) -> BasketOverflow:
    return BasketOverflow(
        read=lambda product: table.get(prefix + product.encode()),
        write=lambda product, value: table.update({prefix + product.encode(): value}),
        scan=partial(_scan_overflow, table, prefix),
    )


def _scan_overflow(table: TableView, prefix: bytes) -> list[tuple[str, bytes]]:
    return [(key[len(prefix) :].decode(), value) for key, value in table.scan(prefix)]


def send_deltas(chunk: Chunk, deltas: DeltaAccumulator) -> None:
    """Send the deltas to the owners of their products, and remove them from the accumulator."""
    headers = _origin_headers(chunk)
    for product, record in deltas.drain_records():
        key = product.encode()
        chunk.send(deltas_topic.get_topic_name(), partition_of(key, settings.partitions), key, record, headers)
