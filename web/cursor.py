"""Cursors: where a list goes on, signed, so that they fit only the user and the parameters they were given for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

import msgspec

from app.config import Settings
from app.lists import Mark
from web.errors import Problem

_SIGNATURE_BYTES = hashlib.sha256().digest_size

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Mark).decode


def secret(settings: Settings) -> bytes:
    """The key that signs: LATELY_CURSOR_SECRET, or one that all workers of the same LATELY_ID have."""
    return hashlib.sha256((settings.cursor_secret or f"cursor of {settings.id}").encode()).digest()


def write(key: bytes, bound_to: tuple, mark: Mark) -> str:
    """The cursor for what comes after `mark`; `bound_to` is the user and the parameters, in plain values."""
    content = _encode(mark)
    return base64.urlsafe_b64encode(_sign(key, bound_to, content) + content).decode().rstrip("=")


def read(key: bytes, bound_to: tuple, text: str) -> Mark:
    """The mark in a cursor. Raises Problem 400 invalid-cursor for any that `write` did not return for `bound_to`."""
    try:
        given = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _invalid() from None
    signature, content = given[:_SIGNATURE_BYTES], given[_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _sign(key, bound_to, content)):
        raise _invalid()
    try:
        mark = _decode(content)
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
