"""Without TLS the password crosses the network in no form that can be read, whatever the server asks for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from app.errors import DatabaseRefused
from app.settings import Settings
from source.mysql import connect

PASSWORD = "hunter2 €"
#: PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH and CONNECT_WITH_DB, but not SSL.
CAPABILITIES = 1 << 9 | 1 << 15 | 1 << 19 | 1 << 3
SEED = b"abcdefghijklmnopqrst"


def packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


def greeting(plugin: str) -> bytes:
    low, high = CAPABILITIES.to_bytes(4, "little")[:2], CAPABILITIES.to_bytes(4, "little")[2:]
    return packet(
        0,
        b"\x0a8.4.0\0" + bytes(4) + SEED[:8] + b"\0" + low + b"\x2d\x02\x00" + high + bytes([21]) + bytes(10)
        + SEED[8:] + b"\0" + plugin.encode() + b"\0",
    )  # fmt: skip


def switch(plugin: str, data: bytes = SEED + b"\0") -> bytes:
    """A request to authenticate by another plugin."""
    return b"\xfe" + plugin.encode() + b"\0" + data


class Impostor:
    """A server without TLS that asks for the password in its own way, and records what it receives."""

    def __init__(self, plugin: str, requests: list[bytes]) -> None:
        self._plugin, self._requests = plugin, requests
        self.received = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    @contextmanager
    def serving(self) -> Iterator[Impostor]:
        thread = threading.Thread(target=self._serve)
        thread.start()
        try:
            yield self
        finally:
            self._listener.close()
            thread.join(10)

    def _serve(self) -> None:
        with suppress(OSError):
            client, _ = self._listener.accept()
            with closing(client):
                client.settimeout(5)
                client.sendall(greeting(self._plugin))
                for request in self._requests:
                    header = self._receive(client)
                    client.sendall(packet(header[3] + 1, request))
                while self._receive(client):
                    pass

    def _receive(self, client: socket.socket) -> bytes:
        data = client.recv(65_536)
        self.received += data
        if not data:
            raise OSError("the client has gone")
        return data


@pytest.mark.parametrize("mode", ["DISABLED", "PREFERRED"])
@pytest.mark.parametrize(
    ("plugin", "requests"),
    [
        ("caching_sha2_password", [b"\x01\x04"]),
        ("mysql_native_password", [switch("caching_sha2_password"), b"\x01\x04"]),
        ("mysql_native_password", [switch("caching_sha2_password", b"\x04")]),
        ("caching_sha2_password", [switch("mysql_clear_password")]),
        ("caching_sha2_password", [switch("sha256_password")]),
        ("mysql_clear_password", []),
        ("sha256_password", []),
    ],
)
def test_a_server_that_asks_for_the_password_itself_does_not_get_it(mode: str, plugin: str, requests: list[bytes]):
    with Impostor(plugin, requests).serving() as server:
        settings = Settings(mysql_port=server.port, mysql_user="ann", mysql_password=PASSWORD, mysql_tls=mode)
        with pytest.raises(DatabaseRefused) as caught:
            connect(settings)
    assert PASSWORD.encode() not in server.received
    assert "hunter" not in str(caught.value)
    step = "enable TLS on the server" if mode == "PREFERRED" else "set LATELY_MYSQL_TLS to VERIFY_IDENTITY or REQUIRED"
    assert step in str(caught.value)


def test_without_tls_a_server_that_demands_tls_gets_not_even_the_user():
    with Impostor("caching_sha2_password", []).serving() as server:
        settings = Settings(mysql_port=server.port, mysql_user="ann", mysql_password=PASSWORD, mysql_tls="REQUIRED")
        with pytest.raises(DatabaseRefused, match="has no TLS"):
            connect(settings)
    assert server.received == b""
