"""The only way to wait in a test."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two checks: twice as long as a check takes, within these limits.
MIN_PAUSE_S, MAX_PAUSE_S = 0.05, 0.5


def eventually(check: Callable[[], T], within: float = 10.0) -> T:
    """Call `check` until it neither raises AssertionError or OSError nor returns False, and return what it returned.

    After `within` seconds the last failure is raised, so that a test reports what it saw instead.
    """
    end = time.monotonic() + within
    while True:
        began = time.monotonic()
        try:
            result = check()
            if result is not False:
                return result
            failure: Exception = AssertionError(f"{check} was still False")
        except (AssertionError, OSError) as exc:
            failure = exc
        now = time.monotonic()
        if now > end:
            raise AssertionError(f"not within {within:g} s: {failure}") from failure
        time.sleep(min(max(2 * (now - began), MIN_PAUSE_S), MAX_PAUSE_S))
