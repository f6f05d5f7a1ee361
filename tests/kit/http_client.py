"""A client of a worker's HTTP interface."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class Answer:
    """What a worker said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class HttpClient:
    """Sends requests to a worker on this machine, each over a connection of its own."""

    host = "127.0.0.1"

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask over HTTP; `path` is sent as it is."""
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=10)) as connection:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.headers), answer.read())

    def connect(self, sent: bytes) -> socket.socket:
        """A connection on which `sent` has gone out as it is."""
        connection = socket.create_connection((self.host, self.port), timeout=15)
        connection.sendall(sent)
        return connection

    def ask_raw(self, sent: bytes) -> Answer:
        """The first answer to whatever `sent` is."""
        method = sent.split(b" ", 1)[0].decode(errors="replace")
        with self.connect(sent) as connection, http.client.HTTPResponse(connection, method=method) as answer:
            answer.begin()
            return Answer(answer.status, dict(answer.headers), answer.read())

    def purchases(self, user: str, limit: int = 20) -> list[tuple]:
        """A user's purchases: (order id, product, price, ordered at, payment method)."""
        answer = self.get(f"/v1/users/{quote(user, safe='')}/purchases?limit={limit}")
        assert answer.status == 200, answer
        assert answer.json["meta"]["complete"] is True, answer
        names = ("order_id", "product_name", "price", "ordered_at", "payment_method")
        return [tuple(purchase[name] for name in names) for purchase in answer.json["purchases"]]

    def totals(self, product: str) -> tuple[int, str]:
        """What the worker says of a product: (purchases, revenue)."""
        answer = self.get(f"/v1/products/{quote(product, safe='')}")
        assert answer.status == 200, answer
        return answer.json["purchases"], answer.json["revenue"]

    def events(self) -> int:
        """How many events the worker's agent by_user has read since its start."""
        prefix = 'lately_events_total{agent="by_user"'
        lines = self.get("/metrics").text.splitlines()
        return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(prefix)))
