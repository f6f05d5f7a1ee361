"""The app whose agents in the background never end their first step: `faust -A tests.system.standstill worker`."""

import asyncio
import logging

from app import background
from app.main import app

__all__ = ["app"]


async def _rest(*_: object) -> None:
    logging.getLogger(__name__).warning("standing still")
    await asyncio.Event().wait()


background.rest = _rest
