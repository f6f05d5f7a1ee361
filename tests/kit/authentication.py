"""Tokens, and the settings of workers that require tokens."""

from __future__ import annotations

from app import tokens
from tests.kit.http_client import Answer, HttpClient

SECRET = "a secret of more than sixteen bytes"
TOKEN_MODE = {"LATELY_AUTH": "token", "LATELY_TOKEN_SECRET": SECRET}

OPERATOR = tokens.create_token(SECRET, operator=True)
ANN = tokens.create_token(SECRET, user="ann", days=1)


def ask(worker: HttpClient, path: str, token: str | None, method: str = "GET", **headers: str) -> Answer:
    return worker.get(path, method, **({"Authorization": f"Bearer {token}"} if token else {}), **headers)


def altered(token: str) -> str:
    """The token with one bit of its signature flipped."""
    head, _, signature = token.rpartition(".")
    flipped = "A" if signature[10] != "A" else "B"
    return f"{head}.{signature[:10]}{flipped}{signature[11:]}"


def set_log_level(worker: HttpClient, body: bytes, content_type: str | None = "application/json") -> Answer:
    """What POST /v1/admin/log-level says to a body."""
    headers = {"Authorization": f"Bearer {OPERATOR}", "Host": "x", "Content-Length": str(len(body))}
    headers |= {} if content_type is None else {"Content-Type": content_type}
    lines = ["POST /v1/admin/log-level HTTP/1.1", *[f"{name}: {text}" for name, text in headers.items()]]
    return worker.ask_raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
