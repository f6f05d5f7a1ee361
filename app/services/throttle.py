"""Work that may wait: while orders are waiting to be read it takes only a small part of the time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from app.core import app, orders

#: The part of the time that one such agent takes while orders wait, and how many have to wait for that.
SHARE, WAITING = 0.04, 1_000
#: The longest rest at once, in seconds: it also holds up a rebalance.
LONGEST_S = 1.0


#: Topic -> how many of its records were worked through: a step of many takes long.
records: Counter[str] = Counter()


async def rest(since: float, topic: str) -> None:
    """Let others work, after work on a record of `topic` that began at `since` (of time.perf_counter)."""
    records[topic] += 1
    spent = time.perf_counter() - since
    await asyncio.sleep(min(LONGEST_S, spent / SHARE - spent) if _orders_wait() else 0)


def _orders_wait() -> bool:
    # Between two owners nothing is read that could be given way to.
    if not app.flow_control.is_active():
        return False
    topic = orders.get_topic_name()
    waiting = 0
    for tp, ledger in app.tables.ledgers.items():
        if tp.topic == topic:
            waiting += max(0, (app.consumer.end_of(tp) or 0) - ledger.position)
    return waiting > WAITING
