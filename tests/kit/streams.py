"""A client of the event stream of a user's purchases."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import quote

from tests.kit.http_client import HttpClient


class PurchaseStream:
    """One connection to a stream."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.response = response

    def next(self) -> dict[str, str]:
        """The next event, field by field; empty for a comment or a reconnection interval. EOFError at the end."""
        event: dict[str, str] = {}
        while True:
            line = self.response.readline()
            if not line:
                raise EOFError
            if line == b"\n":
                return event
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name in ("event", "id", "data"):
                event[name] = value

    def event(self) -> tuple[str, dict]:
        """The id and the data of the next event with content."""
        while True:
            event = self.next()
            if event:
                assert event["event"] == "purchases"
                return event["id"], json.loads(event["data"])

    def read_to_end(self) -> None:
        """Read all events. EOFError at a regular end, OSError or HTTPException at another one."""
        while True:
            self.next()

    def assert_quiet(self) -> None:
        """Wait for a heartbeat; nothing else comes before it."""
        for _ in range(2):
            assert self.next() == {}


@contextmanager
def open_stream(worker: HttpClient, user: str = "ann", query: str = "", **headers: str) -> Iterator[PurchaseStream]:
    """A stream of a user's purchases; `_` in the name of a header stands for `-`."""
    with closing(http.client.HTTPConnection("127.0.0.1", worker.port, timeout=30)) as connection:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", f"/v1/users/{quote(user, safe='')}/purchases/stream{query}", headers=named)
        response = connection.getresponse()
        assert (response.status, response.getheader("Content-Type")) == (200, "text/event-stream; charset=utf-8")
        assert response.getheader("X-Request-ID")
        yield PurchaseStream(response)


def order_ids(data: dict) -> list[str]:
    """The orders in the data of an event."""
    return [row["order_id"] for row in data["purchases"]]
