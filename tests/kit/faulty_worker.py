"""The app with a fault that its environment asks for: `faust -A tests.kit.faulty_worker worker`."""

import asyncio
import logging
import os
import time

import chunks.consumer
import chunks.partition_task
import chunks.rebuild
from app.freeze_guard import FreezeGuard
from app.main import app
from app.services.throttle import Throttle
from tables import by_user

__all__ = ["app"]

#: Nobody notices that the process was frozen.
if "CRASH_UNGUARDED" in os.environ:
    FreezeGuard.start = lambda self: None

#: Steps of another size.
if "CRASH_CHUNK" in os.environ:
    _chunk = int(os.environ["CRASH_CHUNK"])
    chunks.consumer.CHUNK_RECORDS = chunks.partition_task.CHUNK_RECORDS = chunks.rebuild.CHUNK_RECORDS = _chunk


async def _stand_still(*_: object) -> None:
    logging.getLogger(__name__).warning("standing still")
    await asyncio.Event().wait()


#: Agents in the background never end their first step.
if "CRASH_STANDSTILL" in os.environ:
    Throttle.pause = _stand_still

_PAUSE_S = float(os.environ.get("CRASH_PAUSE_S", "0"))
_RAISE_AT = int(os.environ.get("CRASH_RAISE_AT", "0"))
_apply_events, _steps = by_user.apply_events, iter(range(1, 10**9))


def _faulty(*step):
    """Take longer for each chunk; fail in the middle of one, after the table was changed."""
    time.sleep(_PAUSE_S)
    differences = _apply_events(*step)
    if next(_steps) == _RAISE_AT:
        raise RuntimeError(f"planted at step {_RAISE_AT}")
    return differences


by_user.apply_events = _faulty
