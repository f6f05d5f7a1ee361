"""Requests for a snapshot of all rows: a worker has lost rows that `orders` lacks too."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from app.control import source_state, state_topic
from app.control.source_state import SourceStates
from app.settings import Settings
from source import snapshot

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 2.0


async def fulfil_requests(
    settings: Settings, should_continue: Callable[[], bool], on_states: Callable[[SourceStates], None]
) -> None:
    """Take a snapshot of all rows for each request, as long as `should_continue` returns true.

    `on_states` receives the content of source-state every few seconds. Raises BadSource, WrongGeneration, ServerAway.
    """
    async with state_topic.open_reader(settings) as reader:
        while should_continue():
            await reader.catch_up()
            on_states(reader.states)
            request = reader.states.request
            if request is not None and source_state.is_request_pending(request, reader.states.snapshot):
                log.warning(
                    "a worker has lost rows that only the shop's database contains (%s): all rows are published again",
                    request.reason,
                )
                result = await snapshot.run(settings)
                log.info("%d rows are published again", result.rows)
            await asyncio.sleep(POLL_INTERVAL_S)
