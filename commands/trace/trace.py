"""Trace orders from a command, which reads the tables of the workers over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.control import state_topic
from app.ids import require_user_id
from app.kafka.records import open_topic_records
from app.settings import Settings
from app.topics import Topics
from commands.worker_client import open_worker_client
from domain.purchases import Purchase, purchase_sort_key
from source.order_trace import Tracer


@asynccontextmanager
async def open_tracer(settings: Settings, worker: str | None) -> AsyncIterator[Tracer]:
    """Open a tracer; `worker` is the address of any worker. Raises ServerAway."""
    async with open_topic_records(settings) as records, open_worker_client(settings, worker) as worker_client:
        yield Tracer(settings, Topics(settings), records, worker_client.read_user, lambda: state_topic.read(settings))


async def newest_purchases(settings: Settings, user_id: str, count: int, worker: str | None) -> list[Purchase]:
    """Return the `count` newest purchases of a user, newest first.

    Raises ServerAway, UnknownTarget.
    """
    require_user_id(user_id)
    async with open_worker_client(settings, worker) as worker_client:
        _, purchases = await worker_client.read_user(user_id)
    live = (purchase for purchase in purchases if purchase.live)
    return sorted(live, key=purchase_sort_key, reverse=True)[:count]
