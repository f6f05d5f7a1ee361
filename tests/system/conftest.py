"""Shops that run for all tests at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.shared_shop import SharedShop, join_shop
from tests.kit.stack import Servers


@pytest.fixture
def shared_shop(run_folder: Path, servers: Servers) -> SharedShop:
    """A shop with a source and a worker, for tests that only place orders and read."""
    return join_shop(run_folder, servers, "default", LATELY_HEARTBEAT_S="1")


@pytest.fixture
def small_shop(run_folder: Path, servers: Servers) -> SharedShop:
    """The same with a worker that stores only three purchases of a user in one value."""
    return join_shop(run_folder, servers, "small", LATELY_HEARTBEAT_S="1", LATELY_RECENT_LIMIT="3",
                     LATELY_RECENT_SPARE="2")  # fmt: skip
