"""What a worker does when a part of a table was lost: count it, say what to do, and ask the source for what is missing.

by_user is made anew from `orders`, the totals from by_user. What `orders` has forgotten is in the shop's database: a
running source answers the wish for it with a snapshot, and until that has ended `meta.complete` is false.
"""

from __future__ import annotations

import logging
import time

from app import metrics
from app.control import source_state
from app.core import app, settings
from app.kafka.produce import durable_producer
from app.topics import Topics
from chunks import Loss

log = logging.getLogger(__name__)

#: What a snapshot brings back, by itself or by what follows from it.
FROM_MYSQL = ("by_user", "product_partials")


async def on_loss(loss: Loss) -> bool:
    """Take notice of a loss; whether all of it comes back."""
    metrics.REBUILDS.labels(loss.table, loss.reason).inc()
    if not loss.missing:
        return True
    if loss.table not in FROM_MYSQL:
        log.error(
            "%s[%s] stays incomplete: its topic has forgotten what led to it; set LATELY_ID to a new name to count "
            "everything again from orders",
            loss.table, loss.partition,
        )  # fmt: skip
        return False
    log.error(
        "%s[%s]: orders has forgotten what led to a part of it; a running `lately source` publishes all rows again, or "
        "run `lately source snapshot --all`. `lately verify --repair` takes back what was removed meanwhile. Similar "
        "products count twice what comes back: set LATELY_ID to a new name to count them again",
        loss.table, loss.partition,
    )  # fmt: skip
    if loss.table == "by_user":
        async with durable_producer(settings) as producer:
            wish = source_state.Wish(at=time.time_ns() // 1000, why=str(loss))
            await source_state.write(producer, Topics(settings), wish)
    return True


app.tables.on_loss = on_loss
