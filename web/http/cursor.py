"""Cursors: where a list goes on, signed, so that they fit only the user and the parameters they were given for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TypeVar
from urllib.parse import urlencode

import msgspec
from aiohttp.web import Request

from app.core import settings
from app.settings import Settings
from web.http.problems import Problem

T = TypeVar("T", bound=msgspec.Struct)

_SIGNATURE_BYTES = hashlib.sha256().digest_size

_encode = msgspec.msgpack.Encoder().encode


def signing_key(settings: Settings) -> bytes:
    """The key that signs: LATELY_CURSOR_SECRET, or one that all workers of the same LATELY_ID have."""
    return hashlib.sha256((settings.cursor_secret or f"cursor of {settings.id}").encode()).digest()


KEY = signing_key(settings)


def next_page_url(request: Request, following: str) -> str:
    """The address of the page at the cursor `following`."""
    pairs = [(name, said) for name, said in request.query.items() if name != "cursor"]
    return f"{request.rel_url.raw_path}?{urlencode([*pairs, ('cursor', following)])}"


def write(key: bytes, bound_to: tuple, mark: msgspec.Struct) -> str:
    """The cursor for what comes after `mark`; `bound_to` is the user and the parameters, in plain values."""
    content = _encode(mark)
    return base64.urlsafe_b64encode(_sign(key, bound_to, content) + content).decode().rstrip("=")


def read(key: bytes, bound_to: tuple, text: str, kind: type[T]) -> T:
    """The mark in a cursor. Raises Problem 400 invalid-cursor for any that `write` did not return for `bound_to`."""
    try:
        given = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _invalid() from None
    signature, content = given[:_SIGNATURE_BYTES], given[_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _sign(key, bound_to, content)):
        raise _invalid()
    try:
        mark = msgspec.msgpack.decode(content, type=kind)
    except msgspec.DecodeError:  # of another version
        raise _invalid() from None
    # The last character has bits that count for nothing.
    if write(key, bound_to, mark) != text:
        raise _invalid()
    return mark


def _sign(key: bytes, bound_to: tuple, content: bytes) -> bytes:
    return hmac.digest(key, _encode((bound_to, content)), "sha256")


def _invalid() -> Problem:
    return Problem(
        400,
        "invalid-cursor",
        "cursor is not one that was given for this user and these parameters: begin again without it",
        parameter="cursor",
    )
