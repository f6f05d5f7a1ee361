"""One polling loop for everything that has to become true on a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def poll_until(
    check: Callable[[], Awaitable[T]], within_s: float, every_s: float, is_done: Callable[[T], bool] = bool
) -> T:
    """Call `check` every `every_s` seconds until `is_done` accepts its result.

    Return the last result. After `within_s` seconds the last result is returned although it is not
    accepted: the caller raises the error that names the cause. `check` is called at least once. It
    may raise.
    """
    deadline = time.monotonic() + within_s
    while True:
        result = await check()
        if is_done(result) or time.monotonic() >= deadline:
            return result
        await asyncio.sleep(every_s)
