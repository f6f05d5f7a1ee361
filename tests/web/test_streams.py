"""Streams of a user's purchases: no gap, no repetition, and no client that occupies a worker."""

from __future__ import annotations

import http.client
import itertools
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from app.settings import Settings
from tests.kit.event_shop import EventShop
from tests.kit.eventually import eventually
from tests.kit.streams import open_stream, order_ids
from tests.kit.web import WebServer, serve

NOW = datetime(2026, 1, 31, 12)
#: Tests wait for heartbeats.
SETTINGS = replace(Settings(), heartbeat_s=1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    """A server with empty tables."""
    with serve(tmp_path, SETTINGS) as running:
        yield running


def path(user: str, **parameters: object) -> str:
    return f"/v1/users/{quote(user, safe='')}/purchases?{urlencode(parameters)}"


def test_a_stream_says_what_is_and_what_changes(shop: EventShop, server: WebServer):
    shop.insert(("o1", "Phone\nand more", "ann", "1.00", NOW, None))
    assert len(server.purchases("ann")) == 1
    with open_stream(server) as live:
        _, data = live.event()
        said = server.get(path("ann")).json
        assert (data["user_id"], data["purchases"]) == (said["user_id"], said["purchases"])
        assert data["meta"].keys() == said["meta"].keys()
        live.assert_quiet()
        shop.insert(("o2", "Phone", "ann", "1.00", NOW, None))
        seen, data = live.event()
        assert order_ids(data) == ["o2", "o1"]
        assert seen == server.get(path("ann")).headers["ETag"]
        shop.insert(("o3", "Phone", "bob", "1.00", NOW, None))
        shop.update(lambda line: line.order_id == "o2", user_id="bob")
        assert order_ids(live.event()[1]) == ["o1"]
        shop.delete(lambda line: line.user_id == "ann")
        assert order_ids(live.event()[1]) == []
    assert server.get("/v1/users/ann/purchases/stream", method="HEAD").status == 200


def test_a_client_that_comes_back_is_told_what_it_missed_and_nothing_it_knows(shop: EventShop, server: WebServer):
    shop.insert(("o1", "Phone", "ann", "1.00", NOW, None))
    assert len(server.purchases("ann")) == 1
    with open_stream(server) as live:
        seen, _ = live.event()
    with open_stream(server, Last_Event_ID=seen) as live:
        live.assert_quiet()
        shop.insert(("o2", "Phone", "ann", "1.00", NOW, None))
        seen, _ = live.event()
    shop.insert(("o3", "Phone", "ann", "1.00", NOW, None))
    assert len(server.purchases("ann")) == 3
    with open_stream(server, Last_Event_ID=seen) as live:
        assert order_ids(live.event()[1]) == ["o3", "o2", "o1"]


def test_the_number_of_streams_is_bounded(tmp_path: Path):
    with serve(tmp_path, replace(SETTINGS, streams=2)) as worker:
        with open_stream(worker, "ann"), open_stream(worker, "bob"):
            answer = worker.get("/v1/users/cleo/purchases/stream")
            assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (503, "too-many-streams", "1")
            assert worker.get(path("cleo")).status == 200

        def free() -> None:
            with open_stream(worker, "cleo") as live:
                live.event()

        eventually(free)


def test_a_client_that_does_not_read_loses_its_stream(tmp_path: Path):
    with serve(tmp_path, replace(SETTINGS, streams=1)) as worker:
        _assert_that_a_silent_client_is_given_up(worker)


def _assert_that_a_silent_client_is_given_up(worker: WebServer) -> None:
    shop = EventShop(worker)
    prices = itertools.count(2)
    shop.insert(*[(f"o{number}", "\U0001f600" * 250, "ann", "1.00", NOW, None) for number in range(100)])
    assert len(worker.purchases("ann", 100)) == 100

    def another_is(status: int) -> bool:
        shop.update(lambda line: line.order_id == "o0", price=f"{next(prices)}.00")
        with closing(http.client.HTTPConnection("127.0.0.1", worker.port, timeout=30)) as connection:
            connection.request("GET", "/v1/users/bob/purchases/stream")
            return connection.getresponse().status == status

    with closing(socket.socket()) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect(("127.0.0.1", worker.port))
        silent.sendall(b"GET /v1/users/ann/purchases/stream?limit=100 HTTP/1.1\r\nHost: lately\r\n\r\n")
        eventually(lambda: another_is(503))
        eventually(lambda: another_is(200), within=90)
