"""What workers wish for: all rows of the shop once more, because `orders` has forgotten some that they have lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from app.control import source_state
from app.settings import Settings
from source import snapshot

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0


async def grant(settings: Settings, goes_on: Callable[[], bool]) -> None:
    """Take a snapshot for each wish that there is or comes, as long as `goes_on`. Raises BadSource, ServerAway."""
    async with source_state.following(settings) as told:
        while goes_on():
            await told.catch_up()
            wish = told.known.get(source_state.WISH)
            if source_state.ungranted(wish, told.known.get(source_state.SNAPSHOT)):
                log.warning("a worker lacks rows that only the shop has (%s): all rows are published again", wish.why)
                taken = await snapshot.run(settings)
                log.info("%d rows are published again", taken.rows)
            await asyncio.sleep(LOOK_EVERY_S)
