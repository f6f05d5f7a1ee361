"""Kafka as commands reach it: patience with a broker, and words for one that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.errors import KafkaError

from app.config import Settings
from app.errors import ServerAway

#: How long a client may need to start, s.
PATIENCE_S = 15


@asynccontextmanager
async def reachable(settings: Settings) -> AsyncIterator[None]:
    """Say it in words when Kafka does not answer. Raises ServerAway."""
    try:
        yield
    except (KafkaError, asyncio.TimeoutError, OSError) as exc:
        raise ServerAway(
            f"no answer from Kafka at {settings.kafka} ({exc or type(exc).__name__}): "
            "start it, or set LATELY_KAFKA to the servers to use"
        ) from None
