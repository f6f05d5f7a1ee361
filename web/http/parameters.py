"""Reads the parameters of a request, and reports exactly what is wrong with them.

The readers of query parameters return None if the parameter is missing. All of them raise Problem
400.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from aiohttp.web import Request

from domain.events import MAX_ID_BYTES, is_valid_user_id
from domain.values import microseconds
from web.http.problems import Problem
from web.http.routes import Parameter

Choice = TypeVar("Choice", bound=str)

MAX_LIMIT = 100
MAX_USERS = 100
MAX_HEX_VALUES = 200

USER = Parameter(
    "user_id", "The user's id", {"type": "string", "minLength": 1, "maxLength": 128}, location="path", example="ann"
)
LIMIT = Parameter(
    "limit", "Maximum number of rows; a value above 100 counts as 100", {"type": "integer", "minimum": 1}, example=5
)
CURSOR = Parameter("cursor", "Where the page starts: `next_cursor` of the previous page", {"type": "string"})

_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
_LIMIT = re.compile(r"0*([1-9][0-9]*)", re.ASCII)
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)
_HEX = re.compile(r"([0-9a-f]{2})*", re.ASCII)
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-5][0-9])", re.ASCII
)


def require_known(request: Request, *allowed: str) -> None:
    """Raise Problem unknown-parameter if a query parameter is not one of `allowed`."""
    for name in request.query:
        if name not in allowed:
            names = ", ".join(allowed) or "none"
            raise Problem(400, "unknown-parameter", f"allowed parameters: {names}", parameter=name[:100])


def read_limit(request: Request, default: int) -> int:
    """Return `limit`, at most 100. Raises Problem invalid-parameter."""
    values = request.query.getall("limit", [])
    if not values:
        return min(default, MAX_LIMIT)
    number = _LIMIT.fullmatch(values[0]) if len(values) == 1 else None
    if number is None:
        raise invalid_parameter(
            "limit",
            f"limit must be given once, as a whole number from 1 to {MAX_LIMIT}; a larger one counts as {MAX_LIMIT}",
        )
    digits = number[1]
    return MAX_LIMIT if len(digits) > len(str(MAX_LIMIT)) else min(int(digits), MAX_LIMIT)


def read_cursor(request: Request) -> str | None:
    """Return `cursor` undecoded; web.http.cursor decodes it. Raises Problem invalid-parameter."""
    values = read_query_texts(request, "cursor")
    if len(values) > 1:
        raise invalid_parameter("cursor", "cursor must be given once")
    return (values[0] or "") if values else None


def read_number(request: Request, name: str, maximum: int = 2**63 - 1) -> int | None:
    """Return a whole number from 0 to `maximum`. Raises Problem invalid-parameter."""
    values = request.query.getall(name, [])
    if not values:
        return None
    if len(values) > 1 or not _NUMBER.fullmatch(values[0]) or int(values[0]) > maximum:
        raise invalid_parameter(name, f"{name} must be given once, as a whole number from 0 to {maximum}")
    return int(values[0])


def read_choice(request: Request, name: str, *choices: Choice) -> Choice | None:
    """Return one of `choices`. Raises Problem invalid-parameter."""
    values = request.query.getall(name, [])
    if not values:
        return None
    for choice in choices:
        if values == [choice]:
            return choice
    raise invalid_parameter(name, f"{name} must be given once, as one of {', '.join(choices)}")


def read_text(request: Request, name: str, max_length: int) -> str | None:
    """Return a text of 1 to `max_length` characters. Raises Problem invalid-parameter."""
    values = read_query_texts(request, name)
    if not values:
        return None
    if len(values) > 1 or values[0] is None or not 1 <= len(values[0]) <= max_length:
        raise invalid_parameter(name, f"{name} must be given once, as a text of 1 to {max_length} characters in UTF-8")
    return values[0]


def read_time(request: Request, name: str) -> int | None:
    """Return a time of RFC 3339 in microseconds since 1970, rounded up.

    Raises Problem invalid-parameter.
    """
    values = request.query.getall(name, [])
    if not values:
        return None
    try:
        if len(values) > 1 or not _TIME.fullmatch(values[0]):
            raise ValueError(name)
        time, has_remainder = _truncate_time(values[0])
        return microseconds(datetime.fromisoformat(time)) + has_remainder
    except ValueError:
        raise invalid_parameter(
            name,
            f"{name} must be given once, as a time of the years 1 to 9999 with its zone, "
            "like 2026-01-31T12:00:00Z or 2026-01-31T13:00:00%2B01:00",
        ) from None


def _truncate_time(time: str) -> tuple[str, bool]:
    """Return the time in whole microseconds, and whether the original time is later."""
    # Python 3.10 parses neither Z nor a fraction of other than 3 or 6 digits.
    head, zone = time[:19].upper(), time[19:].upper().replace("Z", "+00:00")
    fraction, zone = (zone[1:-6], zone[-6:]) if zone.startswith(".") else ("", zone)
    return f"{head}.{fraction[:6].ljust(6, '0')}{zone}", fraction[6:].strip("0") != ""


def read_hex_values(request: Request, name: str) -> list[bytes]:
    """Return the bytes of each value, written in hex. Raises Problem invalid-parameter."""
    values = request.query.getall(name, [])
    if len(values) > MAX_HEX_VALUES or not all(_HEX.fullmatch(value) for value in values):
        raise invalid_parameter(name, f"{name} must be bytes in lower-case hex, given at most {MAX_HEX_VALUES} times")
    return [bytes.fromhex(value) for value in values]


def read_user_id(request: Request, segment: int) -> str:
    """Return the user id in path segment `segment`, decoded byte for byte.

    Raises Problem invalid-user-id.
    """
    text = read_path_text(request, segment)
    if text is None or not is_valid_user_id(text):
        raise _invalid_user_id()
    return text


def read_query_user_id(request: Request, name: str) -> str | None:
    """Return the user id in the query parameter `name`. Raises Problem invalid-user-id."""
    values = read_query_texts(request, name)
    if not values:
        return None
    if len(values) > 1 or values[0] is None or not is_valid_user_id(values[0]):
        raise _invalid_user_id(name)
    return values[0]


def read_user_ids(request: Request) -> list[str]:
    """Return the distinct `user_id` values. Raises Problem invalid-user-id, invalid-parameter."""
    values = read_query_texts(request, "user_id")
    if not 1 <= len(values) <= MAX_USERS:
        raise invalid_parameter("user_id", f"user_id must be given 1 to {MAX_USERS} times, not {len(values)}")
    users: dict[str, None] = {}
    for user in values:
        if user is None or not is_valid_user_id(user):
            raise _invalid_user_id()
        users[user] = None
    return list(users)


def read_partition(request: Request, segment: int, partitions: int) -> int:
    """Return the partition in a path segment, less than `partitions`.

    Raises Problem invalid-parameter.
    """
    text = read_path_text(request, segment)
    if text is None or not re.fullmatch("[0-9]{1,9}", text, re.ASCII) or int(text) >= partitions:
        raise invalid_parameter("partition", f"partition must be a whole number from 0 to {partitions - 1}")
    return int(text)


def invalid_parameter(name: str, detail: str) -> Problem:
    """Return Problem invalid-parameter."""
    return Problem(400, "invalid-parameter", detail, parameter=name)


def _invalid_user_id(name: str = "user_id") -> Problem:
    return Problem(
        400,
        "invalid-user-id",
        f"a user id is 1 to {MAX_ID_BYTES} bytes of UTF-8 without control characters, and not '.' or '..'",
        parameter=name,
    )


def read_query_texts(request: Request, name: str) -> list[str | None]:
    """Return all values of a query parameter; None for a value that is not UTF-8.

    aiohttp would replace the invalid bytes."""
    pairs = (pair.partition("=") for pair in request.rel_url.raw_query_string.split("&"))
    return [_decode(value.replace("+", " ")) for key, _, value in pairs if _decode(key.replace("+", " ")) == name]


def read_path_text(request: Request, segment: int) -> str | None:
    """Return the decoded path segment; None if it is not UTF-8."""
    # aiohttp does not decode invalid UTF-8: "%ff" would become the three characters %ff.
    return _decode(request.rel_url.raw_path.split("/")[segment])


def _decode(raw: str) -> str | None:
    if raw.isascii() and "%" not in raw:
        return raw
    if _BROKEN_ESCAPE.search(raw):
        return None
    try:
        return unquote_to_bytes(raw.encode(errors="surrogateescape")).decode()
    except UnicodeDecodeError:
        return None
