"""baskets: user id -> the products bought last; user id, zero byte, product name -> each of the others."""

from __future__ import annotations

from functools import partial

from app.core import app, purchase_changes, settings
from app.core import co_purchases as deltas_topic
from app.topics import ORIGIN, origin
from chunks import Chunk
from chunks.chunk import Headers
from chunks.view import View
from domain import co_purchases, purchases
from domain.partitioning import partition_of


def _rebuild(chunk: Chunk) -> None:
    """Fill the baskets; what that changed about products was sent when the changes were read first."""
    for _offset, _key, record in chunk.records:
        _fill(chunk, co_purchases.decode_changes(record), co_purchases.Deltas())


baskets = app.Table(
    "baskets",
    fed_by=purchase_changes,
    partitions=settings.partitions,
    rebuild=_rebuild,
    help="Which products each user counts for; msgpack, see domain.co_purchases.Basket.",
)

#: Pairs that are summed up before they are sent.
MOST_PAIRS = 50_000


def changes(chunk: Chunk) -> list[purchases.Change]:
    """Where an agent step of `orders` puts what was bought and taken back; sent once for all steps of a transaction."""
    return chunk.collect(list, _send_changes)


def _send_changes(chunk: Chunk, collected: list[purchases.Change]) -> None:
    headers = _origin(chunk)
    for record in co_purchases.encode_changes(collected):
        chunk.send(purchase_changes.get_topic_name(), chunk.tp.partition, None, record, headers)


def _origin(chunk: Chunk) -> Headers:
    """Of what it was read: a dump tells by it what is on its way between two tables."""
    return [(ORIGIN, origin(chunk.tp.partition, chunk.next))]


def fill(chunk: Chunk, record: bytes, deltas: co_purchases.Deltas) -> None:
    """Add a record's changes to the users' baskets, and what follows for their products to `deltas`."""
    told = co_purchases.decode_changes(record)
    deltas.note(told)
    _fill(chunk, told, deltas)
    if deltas.pairs > MOST_PAIRS:
        send(chunk, deltas)


def _fill(chunk: Chunk, told: list[purchases.Change], deltas: co_purchases.Deltas) -> None:
    table = chunk.view(baskets)
    by_user: dict[bytes, list[purchases.Change]] = {}
    for change in told:
        by_user.setdefault(change[0].encode(), []).append(change)
    for user, value in table.get_many(by_user).items():
        table[user], before, after = co_purchases.fill(value, by_user[user], _beside(table, user + b"\x00"))
        deltas.count(before, after)


def _beside(table: View, prefix: bytes) -> co_purchases.Beside:
    return co_purchases.Beside(
        get=lambda product: table.get(prefix + product.encode()),
        put=lambda product, value: table.update({prefix + product.encode(): value}),
        scan=partial(_scan, table, prefix),
    )


def _scan(table: View, prefix: bytes) -> list[tuple[str, bytes]]:
    return [(key[len(prefix) :].decode(), value) for key, value in table.scan(prefix)]


def send(chunk: Chunk, deltas: co_purchases.Deltas) -> None:
    """Hand the deltas on to whoever owns their products."""
    headers = _origin(chunk)
    for product, record in deltas.records():
        key = product.encode()
        chunk.send(deltas_topic.get_topic_name(), partition_of(key, settings.partitions), key, record, headers)
