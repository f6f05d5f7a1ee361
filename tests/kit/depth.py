"""How much property tests try: a third in `make test`, everything in `make test-slow`."""

from __future__ import annotations

import os

from hypothesis import settings

IS_FULL = os.environ.get("TEST_DEPTH") == "full"


def examples(count: int) -> settings:
    """Settings for a property test that tries `count` examples in `make test-slow`."""
    # No deadline: on a busy machine one example can take long without meaning anything.
    return settings(max_examples=count if IS_FULL else max(20, count // 3), deadline=None)
