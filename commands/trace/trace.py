"""A tracer for commands: it asks the workers over HTTP for what their tables contain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.control import source_state
from app.ids import require_user
from app.kafka.records import open_topic_records
from app.settings import Settings
from commands.worker_client import open_worker_client
from domain.purchases import Purchase, purchase_sort_key
from source.order_trace import Tracer


@asynccontextmanager
async def open_tracer(settings: Settings, worker: str | None) -> AsyncIterator[Tracer]:
    """A tracer for commands; `worker` is the address of any worker. Raises ServerAway."""
    async with open_topic_records(settings) as log, open_worker_client(settings, worker) as tables:
        yield Tracer(settings, log, tables.read_user, lambda: source_state.read(settings))


async def newest_purchases(settings: Settings, user_id: str, last: int, worker: str | None) -> list[Purchase]:
    """The user's newest purchases, newest first. Raises ServerAway, Unknown."""
    require_user(user_id)
    async with open_worker_client(settings, worker) as tables:
        _, registers = await tables.read_user(user_id)
    return sorted((one for one in registers if one.live), key=purchase_sort_key, reverse=True)[:last]
