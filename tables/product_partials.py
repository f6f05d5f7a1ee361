"""product_partials: product name -> its totals over the orders of one partition of `orders`."""

from __future__ import annotations

from collections import Counter

from app.core import app, orders, settings
from app.core import product_partials as topic
from chunks import Chunk
from domain import purchases
from domain.codec import encode
from domain.partitioning import partition_of
from domain.totals import decode_totals, encode_totals, partial, total
from tables.by_user import by_user


def _rebuild(chunk: Chunk) -> None:
    """Add up the purchases in some values of by_user."""
    differences = Counter(
        (one.product_name, None, one.price)
        for _number, key, value in chunk.records
        for one in purchases.kept(key, value)
        if one.live
    )
    table = chunk.view(product_partials)
    added = {name.encode(): totals for name, totals in total(differences).items()}
    for product, value in table.get_many(added).items():
        table[product] = encode_totals(decode_totals(value) + added[product])


product_partials = app.Table(
    "product_partials",
    fed_by=orders,
    partitions=settings.partitions,
    rebuild=_rebuild,
    rebuilt_from=by_user,
    help="Totals of each product, by partition of orders; msgpack, see domain.totals.encode_totals.",
)


def add(chunk: Chunk, differences: list[purchases.Difference]) -> None:
    """Add what an agent step changed to the totals, once for all steps of a transaction."""
    # Most differences are of one product at one price: counting them costs less than adding each.
    chunk.collect(Counter, _write).update(differences)


def _write(chunk: Chunk, differences: Counter[purchases.Difference]) -> None:
    """Write the new totals, and hand them on to whoever owns the product."""
    table = chunk.view(product_partials)
    added = {name.encode(): (name, totals) for name, totals in total(differences).items()}
    partition, position, topic_name = chunk.tp.partition, chunk.next, topic.get_topic_name()
    for product, value in table.get_many(added).items():
        name, more = added[product]
        totals = decode_totals(value) + more
        table[product] = encode_totals(totals)
        # Not what was added but all that there is: a repeat of it changes nothing.
        chunk.send_latest(
            topic_name,
            partition_of(product, settings.partitions),
            encode((product, partition)),
            partial(name, partition, position, totals),
        )
