"""The polling loop: it ends with an accepted result, or with the last one after the time limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from app.polling import poll_until


def results(*values: int) -> tuple[Callable[[], Awaitable[int]], list[int]]:
    """A check that returns these values one after the other, and the list of values it has
    returned.
    """
    pending, returned = list(values), []

    async def check() -> int:
        returned.append(pending.pop(0))
        return returned[-1]

    return check, returned


def test_polling_ends_with_the_first_accepted_result():
    check, returned = results(0, 0, 3, 4)
    assert asyncio.run(poll_until(check, within_s=60, every_s=0)) == 3
    assert returned == [0, 0, 3]


def test_the_caller_decides_which_result_is_accepted():
    check, returned = results(3, 2, 1, 0, 5)
    assert asyncio.run(poll_until(check, within_s=60, every_s=0, is_done=lambda value: value < 2)) == 1
    assert returned == [3, 2, 1]


def test_without_time_the_check_is_made_once_and_its_result_is_returned():
    check, returned = results(0, 1)
    assert asyncio.run(poll_until(check, within_s=0, every_s=60)) == 0
    assert returned == [0]


def test_after_the_time_limit_the_last_result_is_returned():
    async def check() -> bool:
        return False

    began = time.monotonic()
    assert asyncio.run(poll_until(check, within_s=0.05, every_s=0.01)) is False
    assert time.monotonic() - began >= 0.05


def test_an_error_of_the_check_ends_the_polling():
    async def check() -> bool:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(poll_until(check, within_s=60, every_s=0))
