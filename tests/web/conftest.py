"""A web server in the process of the tests, for each test or for a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.event_shop import EventShop
from tests.kit.web import WebServer, serve


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    """A server with empty tables."""
    with serve(tmp_path) as running:
        yield running


@pytest.fixture
def shop(server: WebServer) -> EventShop:
    """The shop of the server."""
    return EventShop(server)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server with empty tables, for tests that only read."""
    with serve(tmp_path_factory.mktemp("shared")) as running:
        yield running
