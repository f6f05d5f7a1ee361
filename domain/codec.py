"""Encoding of stored values: msgpack documents that start with a format number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

from domain.errors import Undecodable, UnknownFormat

#: The errors that msgspec raises for invalid input; RecursionError for nesting beyond Python's
#: limit.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

encode = msgspec.msgpack.Encoder().encode


class Formatted(Protocol):
    """A struct whose first field is the format number."""

    @property
    def format(self) -> int:
        """The number of the format that the value is written in."""


Document = TypeVar("Document", bound="Formatted | tuple[object, ...]")


def decode_checked(decode: Callable[[bytes], Document], value: bytes, format_number: int, table: str) -> Document:
    """Decode a value of a table, and check its format number.

    The value is a struct or a tuple whose first field is the format number. Raises UnknownFormat
    if the value has another format number than `format_number`, Undecodable (a kind of it) if it
    cannot be decoded.
    """
    try:
        document = decode(value)
    except UNDECODABLE as exc:
        raise Undecodable(
            f"a value of the table {table} cannot be read ({exc}); it was written by another version of Lately: "
            "run that version, or set LATELY_ID to a new name to build the tables anew"
        ) from None
    actual = document[0] if isinstance(document, tuple) else document.format
    if actual != format_number:
        raise UnknownFormat(
            f"a value of the table {table} has format {actual}, this version reads {format_number}: "
            "run the version that wrote it, or set LATELY_ID to a new name to build the tables anew"
        )
    return document
