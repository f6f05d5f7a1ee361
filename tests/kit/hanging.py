"""`faust -A tests.kit.hanging worker`: the whole app, with a fault planted where HANG says: agent, loop or recovery."""

import asyncio
import os
import time

from agents.by_user import update_by_user
from agents.decode import decode_events
from app.main import app
from chunks.recovery import Restore
from tables import by_user

__all__ = ["app"]

#: At an event of this user the agent never comes back.
USER = b"hang"


async def _hanging_agent(stream):
    async for chunk in stream:
        events = decode_events(chunk, "by_user")
        if any(user == USER for _, user, _ in events):
            if os.environ["HANG"] == "loop":
                time.sleep(1_000)
            await asyncio.Event().wait()
        by_user.apply_events(chunk, events, None)


async def _hanging_restore(*_: object) -> None:
    await asyncio.Event().wait()


if os.environ["HANG"] == "recovery":
    Restore.run = _hanging_restore
else:
    update_by_user.fun = _hanging_agent
