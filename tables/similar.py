"""similar: product name -> who bought it, its history, and with each other product: how many users have both.

Three kinds of keys: "p", product name; "h", product name; and "n", product name, the byte ff, which no UTF-8 has, the
other's name. A pair has a key of its own, so that a purchase writes its pairs and not the list of each product; the
history has one, because only the pages of products read it.
"""

from __future__ import annotations

import time
from itertools import islice

from app.core import app, co_purchases, settings
from chunks import Chunk
from domain import co_purchases as fold
from domain import product_history
from domain.co_purchases import Brief, Sales
from domain.product_history import History


def _rebuild(chunk: Chunk) -> None:
    for _offset, product, record in chunk.records:
        add(chunk, product, record)


similar = app.Table(
    "similar",
    fed_by=co_purchases,
    partitions=settings.partitions,
    rebuild=_rebuild,
    help="Buyers, history and neighbours of each product; msgpack, see domain.co_purchases.Sales.",
)


def briefs(product_names: list[str], partition: int) -> list[Brief | None]:
    """What is known of products; None where nobody ever bought it. The partition must be owned here."""
    values = similar.read_many(partition, [_product(name.encode()) for name in product_names])
    return [None if value is None else fold.decode_brief(value) for value in values]


def history(product_name: str, partition: int) -> History:
    """The newest purchases of a product and their counts over time. The partition must be owned here."""
    return product_history.decode(similar.read(partition, _history(product_name.encode())))


def neighbours(product_name: str, partition: int, after: str | None, most: int) -> list[tuple[str, int]]:
    """The products that somebody has together with this one and how many have, `most` of them after `after`.

    In the order of their names' bytes. The partition must be owned here.
    """
    prefix = _pair(product_name.encode(), b"")
    behind = None if after is None else prefix + after.encode()
    pairs = islice(similar.scan(partition, prefix, behind), most)
    return [(key[len(prefix) :].decode(), fold.decode_count(value)) for key, value in pairs]


def products(partition: int, after: str | None, most: int) -> list[tuple[str, Sales]]:
    """Products of a partition, `most` of them after `after`, in the order of their names' bytes.

    It must be owned here.
    """
    behind = None if after is None else _product(after.encode())
    pairs = islice(similar.scan(partition, _product(b""), behind), most)
    return [(key[1:].decode(), fold.decode_sales(value)) for key, value in pairs]


def now_hour() -> int:
    """The hour that it is, since 1970."""
    return int(time.time() // 3_600)


def add(chunk: Chunk, product: bytes, record: bytes) -> None:
    """Add a record of co-purchases to what is known of its product."""
    table, delta = chunk.view(similar), fold.decode_delta(record)
    key, past = _product(product), _history(product)
    pairs = {_pair(product, name.encode()): n for name, n in delta.neighbours.items()}
    values = table.get_many([key, past, *pairs])
    table[key] = fold.add_sales(values.pop(key), delta, now_hour())
    before = values.pop(past)
    if delta.purchases:
        table[past] = product_history.add(before, delta.purchases, now_hour())
    table.update({pair: fold.add_count(value, pairs[pair]) for pair, value in values.items()})


def _product(product: bytes) -> bytes:
    return b"p" + product


def _history(product: bytes) -> bytes:
    return b"h" + product


def _pair(product: bytes, other: bytes) -> bytes:
    return b"n" + product + b"\xff" + other
