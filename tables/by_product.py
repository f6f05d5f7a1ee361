"""by_product: (product name, order id) -> what the purchase adds to the totals of its product.

One small value per purchase makes a repeated event harmless without any limit on their number. The totals are kept
in memory beside it and are counted anew when a partition has been recovered
(docs/decisions/003-product-totals-from-purchases.md).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import msgspec

from app import folds
from app.core import app, settings
from app.models import Event

by_product = app.Table(
    "by_product",
    key_type=bytes,
    value_type=bytes,
    partitions=settings.partitions,
    help="One purchase of a product; msgpack, see app.folds.Sale.",
)

ROWS_BETWEEN_PAUSES = 2_000

_totals: dict[int, dict[str, folds.Totals]] = defaultdict(dict)


def totals(product_name: str, partition: int) -> folds.Totals | None:
    """How often the product was bought and for how much; None when it never was. The partition must be owned here."""
    return _totals[partition].get(product_name)


def count(event: Event, partition: int) -> None:
    """Add one event to its product; only the agent of the same name may call this.

    As in by_user, the value is written even when the event changes nothing.
    """
    key = folds.encode((event.data.product_name, event.data.order_id))
    before = folds.decode_sale(by_product.get(key))
    after = folds.sale(before, event)
    by_product[key] = folds.encode(after)
    _add(partition, event.data.product_name, before, after)


@by_product.on_recover
async def recount(*_: object) -> None:
    """Count the totals of all partitions owned now from the table."""
    _totals.clear()
    for tp in app.tables.recovery.actives_for_table[by_product]:
        for number, (key, value) in enumerate(by_product.data.scan(tp.partition)):
            if number % ROWS_BETWEEN_PAUSES == 0:
                await asyncio.sleep(0)  # the process has to answer and to heartbeat meanwhile
            product_name, _order_id = msgspec.msgpack.decode(key)
            _add(tp.partition, product_name, None, folds.decode_sale(value))


def _add(partition: int, product_name: str, before: folds.Sale | None, after: folds.Sale) -> None:
    known = _totals[partition].get(product_name, folds.Totals())
    _totals[partition][product_name] = folds.retotal(known, before, after)
