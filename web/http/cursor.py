"""Signed cursors: the position of the next page of a list.

A cursor is valid only for the call that it was created for: its signature includes `bound_to`, such
as the user and the parameters. Decoding accepts only the exact text that `write` returned.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TypeVar
from urllib.parse import urlencode

import msgspec
from aiohttp.web import Request

from app.settings import Settings
from web.http.problems import Problem

Position = TypeVar("Position", bound=msgspec.Struct)

_SIGNATURE_BYTES = hashlib.sha256().digest_size

_encode = msgspec.msgpack.Encoder().encode


def signing_key(settings: Settings) -> bytes:
    """Return the key of the signatures: LATELY_CURSOR_SECRET, or a key derived from LATELY_ID."""
    return hashlib.sha256((settings.cursor_secret or f"cursor of {settings.id}").encode()).digest()


def next_page_url(request: Request, cursor: str) -> str:
    """Return path and query of the page at `cursor`, with the request's other parameters."""
    pairs = [(name, value) for name, value in request.query.items() if name != "cursor"]
    return f"{request.rel_url.raw_path}?{urlencode([*pairs, ('cursor', cursor)])}"


def write(key: bytes, bound_to: tuple[object, ...], position: msgspec.Struct) -> str:
    """Return the cursor of the rows after `position`."""
    content = _encode(position)
    return base64.urlsafe_b64encode(_sign(key, bound_to, content) + content).decode().rstrip("=")


def read(key: bytes, bound_to: tuple[object, ...], text: str, position_type: type[Position]) -> Position:
    """Return the position in a cursor.

    Raises Problem 400 invalid-cursor for any text that `write` did not return.
    """
    try:
        signed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _invalid_cursor() from None
    signature, content = signed[:_SIGNATURE_BYTES], signed[_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _sign(key, bound_to, content)):
        raise _invalid_cursor()
    try:
        position = msgspec.msgpack.decode(content, type=position_type)
    except msgspec.DecodeError:  # written by another version
        raise _invalid_cursor() from None
    # Base64 ignores the unused bits of the last character.
    if write(key, bound_to, position) != text:
        raise _invalid_cursor()
    return position


def _sign(key: bytes, bound_to: tuple[object, ...], content: bytes) -> bytes:
    return hmac.digest(key, _encode((bound_to, content)), "sha256")


def _invalid_cursor() -> Problem:
    return Problem(
        400,
        "invalid-cursor",
        "the cursor does not belong to this user and these parameters: start again without it",
        parameter="cursor",
    )
