"""A tracer for commands: it asks the workers over HTTP for what their tables contain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.control import source_state
from app.ids import require_user
from app.kafka.records import reading
from app.settings import Settings
from commands.worker_client import workers
from domain.purchases import Register, place
from source.order_trace import Tracer


@asynccontextmanager
async def tracing(settings: Settings, worker: str | None) -> AsyncIterator[Tracer]:
    """A tracer for commands; `worker` is the address of any worker. Raises ServerAway."""
    async with reading(settings) as log, workers(settings, worker) as tables:
        yield Tracer(settings, log, tables.known, lambda: source_state.read(settings))


async def newest(settings: Settings, user_id: str, last: int, worker: str | None) -> list[Register]:
    """The user's newest purchases, newest first. Raises ServerAway, Unknown."""
    require_user(user_id)
    async with workers(settings, worker) as tables:
        _, registers = await tables.known(user_id)
    return sorted((one for one in registers if one.live), key=place, reverse=True)[:last]
