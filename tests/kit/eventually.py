"""The only way to wait in a test."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_S = 0.05


def eventually(check: Callable[[], T], within: float = 10.0) -> T:
    """Call `check` until it neither raises AssertionError or OSError nor returns False, and return what it returned.

    After `within` seconds the last failure is raised, so that a test says what it saw instead.
    """
    end = time.monotonic() + within
    while True:
        try:
            seen = check()
            if seen is not False:
                return seen
            failure: Exception = AssertionError(f"{check} was still False")
        except (AssertionError, OSError) as exc:
            failure = exc
        if time.monotonic() > end:
            raise AssertionError(f"not within {within:g} s: {failure}") from failure
        time.sleep(PAUSE_S)
