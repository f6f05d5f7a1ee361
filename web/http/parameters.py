"""Reading what a request asks for, and saying exactly what is wrong with it."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from aiohttp.web import Request

from domain.events import (
    MAX_ID_BYTES,
    MAX_LABEL,
    MAX_ORDER_ID_BYTES,
    MAX_PRODUCT_NAME,
    valid_order_id,
    valid_user_id,
)
from domain.pages import Filter
from domain.values import microseconds
from web.http.problems import Problem

MAX_LIMIT = 100
MAX_WAIT_MS = 5_000
MAX_USERS = 100
MAX_KEYS = 200

#: What can be asked of a list of purchases; the first ones are all that can be asked of many users', or of a stream.
FILTERS = ("limit", "group_by", "since", "until", "payment_method")
ALL = (*FILTERS, "cursor", "max_lag_ms", "after_order", "wait_ms", "consistency")

_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
_LIMIT = re.compile(r"0*([1-9][0-9]*)", re.ASCII)
_BROKEN = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-5][0-9])", re.ASCII
)


class Query(NamedTuple):
    """What is asked of a user's purchases."""

    limit: int
    cursor: str | None = None
    group_by: str | None = None
    wanted: Filter = Filter()
    max_lag_ms: int | None = None
    after_order: str | None = None
    wait_ms: int = 0
    consistency: str = "any"

    def bound_to(self, user_id: str) -> tuple:
        """What a cursor is valid for: the user, and everything but limit and cursor."""
        return (user_id, *self[2:])


def query(request: Request, allowed: tuple[str, ...], default_limit: int) -> Query:
    """All that is asked of a list of purchases, if it is among `allowed`.

    Raises Problem 400 unknown-parameter, invalid-parameter.
    """
    if not request.query_string:
        return _plain(default_limit)
    only(request, *allowed)
    since, until = moment(request, "since"), moment(request, "until")
    if since is not None and until is not None and since > until:
        raise _invalid("since", "since must not be later than until")
    return Query(
        limit(request, default_limit),
        cursor(request),
        choice(request, "group_by", "order", "product"),
        Filter(since, until, text(request, "payment_method", MAX_LABEL)),
        number(request, "max_lag_ms"),
        text(request, "after_order", MAX_ORDER_ID_BYTES),
        number(request, "wait_ms", most=MAX_WAIT_MS) or 0,
        choice(request, "consistency", "any", "active", "source") or "any",
    )


@cache
def _plain(default_limit: int) -> Query:
    return Query(min(default_limit, MAX_LIMIT))


def user_id(request: Request, segment: int) -> str:
    """The user id in path segment `segment`, exactly as its bytes were sent. Raises Problem 400 invalid-user-id."""
    text = _path_text(request, segment)
    if text is None or not valid_user_id(text):
        raise _invalid_user_id()
    return text


def product_name(request: Request, segment: int) -> str:
    """The product name in path segment `segment`. Raises Problem 400 invalid-product-name."""
    return _valid_product_name(_path_text(request, segment), "product_name")


def query_product_name(request: Request, name: str) -> str:
    """The product name in the parameter `name`. Raises Problem 400 invalid-product-name."""
    found = _query_texts(request, name)
    return _valid_product_name(found[0] if len(found) == 1 else None, name)


def _valid_product_name(text: str | None, parameter: str) -> str:
    if text is None or not 1 <= len(text) <= MAX_PRODUCT_NAME:
        raise Problem(
            400,
            "invalid-product-name",
            f"a product name has 1 to {MAX_PRODUCT_NAME} characters in UTF-8",
            parameter=parameter,
        )
    return text


def order_id(request: Request, segment: int) -> str:
    """The order id in path segment `segment`. Raises Problem 400 invalid-order-id."""
    text = _path_text(request, segment)
    if text is None or not valid_order_id(text):
        raise Problem(
            400,
            "invalid-order-id",
            f"an order id is 1 to {MAX_ORDER_ID_BYTES} bytes of UTF-8 without control characters",
            parameter="order_id",
        )
    return text


def limit(request: Request, default: int) -> int:
    """The parameter `limit`, at most 100. Raises Problem 400 invalid-parameter."""
    values = request.query.getall("limit", [])
    if not values:
        return min(default, MAX_LIMIT)
    number = _LIMIT.fullmatch(values[0]) if len(values) == 1 else None
    if number is None:
        raise _invalid(
            "limit",
            f"limit must be given once, as a whole number from 1 to {MAX_LIMIT}; a larger one counts as {MAX_LIMIT}",
        )
    digits = number[1]
    return MAX_LIMIT if len(digits) > len(str(MAX_LIMIT)) else min(int(digits), MAX_LIMIT)


def cursor(request: Request) -> str | None:
    """The parameter `cursor` as it was given, for web.http.cursor to read. Raises Problem 400 invalid-parameter."""
    values = _query_texts(request, "cursor")
    if len(values) > 1:
        raise _invalid("cursor", "cursor must be given once")
    return (values[0] or "") if values else None


def number(request: Request, name: str, most: int = 2**63 - 1) -> int | None:
    """A whole number from 0 to `most`; None where it is not given. Raises Problem 400 invalid-parameter."""
    values = request.query.getall(name, [])
    if not values:
        return None
    if len(values) > 1 or not _NUMBER.fullmatch(values[0]) or int(values[0]) > most:
        raise _invalid(name, f"{name} must be given once, as a whole number from 0 to {most}")
    return int(values[0])


def choice(request: Request, name: str, *choices: str) -> str | None:
    """One of `choices`; None where it is not given. Raises Problem 400 invalid-parameter."""
    values = request.query.getall(name, [])
    if not values:
        return None
    if len(values) > 1 or values[0] not in choices:
        raise _invalid(name, f"{name} must be given once, as one of {', '.join(choices)}")
    return values[0]


def text(request: Request, name: str, most: int) -> str | None:
    """A text of 1 to `most` characters; None where it is not given. Raises Problem 400 invalid-parameter."""
    values = _query_texts(request, name)
    if not values:
        return None
    if len(values) > 1 or values[0] is None or not 1 <= len(values[0]) <= most:
        raise _invalid(name, f"{name} must be given once, as a text of 1 to {most} characters in UTF-8")
    return values[0]


def moment(request: Request, name: str) -> int | None:
    """A time in RFC 3339, in microseconds since 1970, rounded up; None where it is not given. Raises Problem 400."""
    values = request.query.getall(name, [])
    if not values:
        return None
    try:
        if len(values) > 1 or not _TIME.fullmatch(values[0]):
            raise ValueError(name)
        time, beyond = _isoformat(values[0])
        return microseconds(datetime.fromisoformat(time)) + beyond
    except ValueError:
        raise _invalid(
            name,
            f"{name} must be given once, as a time of the years 1 to 9999 with its zone, "
            "like 2026-01-31T12:00:00Z or 2026-01-31T13:00:00%2B01:00",
        ) from None


def _isoformat(time: str) -> tuple[str, bool]:
    """The same to the microsecond, and whether it is later than that."""
    # Python 3.10 reads neither Z nor a fraction of other than 3 or 6 digits.
    head, zone = time[:19].upper(), time[19:].upper().replace("Z", "+00:00")
    fraction, zone = (zone[1:-6], zone[-6:]) if zone.startswith(".") else ("", zone)
    return f"{head}.{fraction[:6].ljust(6, '0')}{zone}", fraction[6:].strip("0") != ""


def user_ids(request: Request) -> list[str]:
    """The users named by the parameter `user_id`, each once. Raises Problem 400 invalid-user-id, invalid-parameter."""
    found = _query_texts(request, "user_id")
    if not 1 <= len(found) <= MAX_USERS:
        raise _invalid("user_id", f"user_id must be given 1 to {MAX_USERS} times, not {len(found)}")
    for one in found:
        if one is None or not valid_user_id(one):
            raise _invalid_user_id()
    return list(dict.fromkeys(found))


def partition(request: Request, segment: int, partitions: int) -> int:
    """The partition in a path segment, below `partitions`. Raises Problem 400 invalid-parameter."""
    text = _path_text(request, segment)
    if text is None or not re.fullmatch("[0-9]{1,9}", text, re.ASCII) or int(text) >= partitions:
        raise _invalid("partition", f"partition must be a whole number from 0 to {partitions - 1}")
    return int(text)


def hexes(request: Request, name: str) -> list[bytes]:
    """The bytes that a parameter says in hex each time it is given. Raises Problem 400 invalid-parameter."""
    values = request.query.getall(name, [])
    if len(values) > MAX_KEYS or not all(re.fullmatch("([0-9a-f]{2})*", one, re.ASCII) for one in values):
        raise _invalid(name, f"{name} must be bytes in lower-case hex, given at most {MAX_KEYS} times")
    return [bytes.fromhex(one) for one in values]


def query_user_id(request: Request, name: str) -> str | None:
    """The user id in the parameter `name`; None where it is not given. Raises Problem 400 invalid-user-id."""
    found = _query_texts(request, name)
    if not found:
        return None
    if len(found) > 1 or found[0] is None or not valid_user_id(found[0]):
        raise _invalid_user_id(name)
    return found[0]


def only(request: Request, *allowed: str) -> None:
    """Raise Problem 400 unknown-parameter for a query parameter that is not one of `allowed`."""
    for name in request.query:
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            raise Problem(400, "unknown-parameter", f"allowed parameters: {known}", parameter=name[:100])


def _invalid(name: str, detail: str) -> Problem:
    return Problem(400, "invalid-parameter", detail, parameter=name)


def _invalid_user_id(name: str = "user_id") -> Problem:
    return Problem(
        400,
        "invalid-user-id",
        f"a user id is 1 to {MAX_ID_BYTES} bytes of UTF-8 without control characters, and not '.' or '..'",
        parameter=name,
    )


def _query_texts(request: Request, name: str) -> list[str | None]:
    """What a parameter says each time it is given; None for what is not UTF-8, which aiohttp would change."""
    pairs = (pair.partition("=") for pair in request.rel_url.raw_query_string.split("&"))
    return [_decoded(said.replace("+", " ")) for key, _, said in pairs if _decoded(key.replace("+", " ")) == name]


def _path_text(request: Request, segment: int) -> str | None:
    # aiohttp's own decoding keeps what is not UTF-8 as it is, so "%ff" would pass for a name.
    return _decoded(request.rel_url.raw_path.split("/")[segment])


def _decoded(raw: str) -> str | None:
    if raw.isascii() and "%" not in raw:
        return raw
    if _BROKEN.search(raw):
        return None
    try:
        return unquote_to_bytes(raw.encode(errors="surrogateescape")).decode()
    except UnicodeDecodeError:
        return None
