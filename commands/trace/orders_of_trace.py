"""The orders of a W3C trace, found in the shop's database and in the dead letters.

The topic is not searched.
"""

from __future__ import annotations

import asyncio

from app.errors import UnknownTarget
from app.kafka import dead_letter_topic
from app.settings import Settings
from domain.events import read_references, trace_id_of
from source import order_lookup
from source.order_trace import MAX_DEAD_LETTERS


async def find_orders(settings: Settings, trace_id: str) -> list[str]:
    """Return the trace's orders: from the shop's table and outbox, else from dead letters.

    Raises UnknownTarget if there are none, ServerAway, BadSource.
    """
    order_ids = await asyncio.to_thread(order_lookup.find_orders_of_trace, settings, trace_id)
    if not order_ids:
        order_ids = await _find_in_dead_letters(settings, trace_id)
    if order_ids:
        return order_ids
    column = settings.traceparent_column
    if column is None:
        raise UnknownTarget(
            f"no change of the trace {trace_id} is in the outbox, and no column with traces is known: "
            "name it in LATELY_SOURCE_COLUMNS, as traceparent=its_name, or read the complete topic with --history"
        )
    raise UnknownTarget(
        f"no row of {settings.source_table} has the trace {trace_id} in its column {column}, and no change of the "
        "trace is in the outbox; read the complete topic with --history to find rows that changed since"
    )


async def _find_in_dead_letters(settings: Settings, trace_id: str) -> list[str]:
    letters = await dead_letter_topic.find_letters(
        settings, lambda letter: trace_id_of(read_references(letter.value)[1]) == trace_id, MAX_DEAD_LETTERS
    )
    order_ids = [read_references(letter.value)[0] for letter in letters]
    return list(dict.fromkeys(str(order_id) for order_id in order_ids if order_id is not None))
