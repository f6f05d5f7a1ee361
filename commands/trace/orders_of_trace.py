"""The orders of a W3C trace: the shop's database is asked, never the topic."""

from __future__ import annotations

import asyncio

from app.errors import Unknown
from app.kafka import dead_letter_topic
from app.settings import Settings
from domain.events import read_references, trace_id_of
from source import order_lookup
from source.order_trace import MAX_DEAD_LETTERS


async def find_orders(settings: Settings, trace_id: str) -> list[str]:
    """The ids of its orders: by the shop's column and the outbox, and only where these have none by a dead letter.

    Raises Unknown where there is none, ServerAway, BadSource.
    """
    found = await asyncio.to_thread(order_lookup.find_orders_of_trace, settings, trace_id)
    if not found:
        letters = await dead_letter_topic.find_letters(
            settings, lambda one: trace_id_of(read_references(one.value)[1]) == trace_id, MAX_DEAD_LETTERS
        )
        said = [read_references(one.value)[0] for one in letters]
        found = list(dict.fromkeys(str(order_id) for order_id in said if order_id is not None))
    if found:
        return found
    column = settings.traceparent_column
    if column is None:
        raise Unknown(
            f"no change of the trace {trace_id} waits in the outbox, and no column is known that says it: "
            "name it in LATELY_SOURCE_COLUMNS, as traceparent=its_name, or read the whole topic with --history"
        )
    raise Unknown(
        f"no row of {settings.source_table} has the trace {trace_id} in its column {column}, and no change that waits "
        "is of it; rows that were changed or removed since are found in the topic, which --history reads from its begin"
    )
