"""Requests and responses as bytes on a connection, for what no HTTP client sends."""

from __future__ import annotations

import socket


def raw(method: str, path: str, headers: dict[str, str], body: str = "") -> bytes:
    """A request as it goes over the wire; nothing in it is checked."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *[f"{name}: {text}" for name, text in headers.items()]]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def drained(connection: socket.socket, trickle: bool = False) -> bytes:
    """All that comes until the worker closes; TimeoutError when it does not within 10 s."""
    came = b""
    connection.settimeout(0.5)
    for _ in range(20):
        try:
            if trickle:
                connection.sendall(b"x")
            data = connection.recv(65_536)
        except TimeoutError:
            continue
        except ConnectionError:
            return came
        if not data:
            return came
        came += data
    raise TimeoutError("the connection is still open")
