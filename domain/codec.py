"""Encoding and decoding of stored values: msgpack, each value begins with its format number."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from domain.errors import UnknownFormat

#: What decoding raises for bytes that are not what they should be; nesting beyond Python's limit counts as that.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

encode = msgspec.msgpack.Encoder().encode


def decode_checked(decode: Callable, value: bytes, format_number: int, table: str):
    """What `decode` makes of `value`, a struct or tuple that begins with its format. Raises UnknownFormat."""
    try:
        state = decode(value)
    except UNDECODABLE as exc:
        raise UnknownFormat(
            f"a value of the table {table} cannot be read ({exc}); it was written by another version of Lately: "
            "run that version, or set LATELY_ID to a new name to build the tables anew"
        ) from None
    found = state[0] if isinstance(state, tuple) else state.format
    if found != format_number:
        raise UnknownFormat(
            f"a value of the table {table} has format {found}, this version knows {format_number}: "
            "run the version that wrote it, or set LATELY_ID to a new name to build the tables anew"
        )
    return state
