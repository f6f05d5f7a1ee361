"""product_partials: product name -> its totals over the orders of one partition of `orders`."""

from __future__ import annotations

from collections import Counter

from app.core import app, orders, settings
from app.core import product_partials as partials_topic
from chunks import Chunk
from domain.codec import encode
from domain.partitioning import partition_of
from domain.purchases import PriceChange, entry_purchases
from domain.totals import decode_totals, encode_partial, encode_totals, sum_price_changes
from tables.by_user import by_user


def _rebuild(chunk: Chunk) -> None:
    """Add the purchases of a chunk of entries of by_user to the totals."""
    price_changes: Counter[PriceChange] = Counter()
    for _index, key, value in chunk.records:
        assert key is not None, "an entry of a table has a key"
        assert value is not None, "an entry of a table has a value"
        for purchase in entry_purchases(key, value):
            if purchase.live:
                price_changes[purchase.product_name, None, purchase.price] += 1
    table = chunk.view(product_partials)
    increments = {name.encode(): totals for name, totals in sum_price_changes(price_changes).items()}
    for product, value in table.get_many(increments).items():
        table[product] = encode_totals(decode_totals(value) + increments[product])


product_partials = app.Table(
    "product_partials",
    source_topic=orders,
    partitions=settings.partitions,
    rebuild=_rebuild,
    derived_from=by_user,
    help="Totals of each product, by partition of orders; msgpack, see domain.totals.encode_totals.",
)


def add_price_changes(chunk: Chunk, price_changes: list[PriceChange]) -> None:
    """Add the price changes of an agent step to the totals, once for all steps of a transaction."""
    # Most changes have the same product and price: counting them is faster than adding each.
    chunk.accumulate(Counter[PriceChange], _write_totals).update(price_changes)


def _write_totals(chunk: Chunk, price_changes: Counter[PriceChange]) -> None:
    """Write the new totals, and send them to the owners of the products."""
    table = chunk.view(product_partials)
    increments = {name.encode(): (name, totals) for name, totals in sum_price_changes(price_changes).items()}
    partition, position, topic_name = chunk.tp.partition, chunk.next, partials_topic.get_topic_name()
    for product, value in table.get_many(increments).items():
        name, increment = increments[product]
        totals = decode_totals(value) + increment
        table[product] = encode_totals(totals)
        # The totals are sent, not the increment, so that a repeated record changes nothing.
        chunk.send_latest(
            topic_name,
            partition_of(product, settings.partitions),
            encode((product, partition)),
            encode_partial(name, partition, position, totals),
        )
