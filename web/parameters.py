"""Reading what a request asks for, and saying exactly what is wrong with it."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from aiohttp.web import Request

from app.models import MAX_ID_BYTES, MAX_PRODUCT_NAME, valid_user_id
from web.errors import Problem

MAX_LIMIT = 100

_LIMIT = re.compile(r"[0-9]{1,19}", re.ASCII)


def user_id(request: Request, segment: int) -> str:
    """The user id in path segment `segment`, exactly as its bytes were sent. Raises Problem 400 invalid-user-id."""
    text = _path_text(request, segment)
    if text is None or not valid_user_id(text):
        raise Problem(
            400,
            "invalid-user-id",
            f"a user id is 1 to {MAX_ID_BYTES} bytes of UTF-8 without control characters, and not '.' or '..'",
            parameter="user_id",
        )
    return text


def product_name(request: Request, segment: int) -> str:
    """The product name in path segment `segment`. Raises Problem 400 invalid-product-name."""
    text = _path_text(request, segment)
    if text is None or not 1 <= len(text) <= MAX_PRODUCT_NAME:
        raise Problem(
            400,
            "invalid-product-name",
            f"a product name has 1 to {MAX_PRODUCT_NAME} characters in UTF-8",
            parameter="product_name",
        )
    return text


def limit(request: Request, default: int) -> int:
    """The parameter `limit`, at most 100. Raises Problem 400 invalid-parameter."""
    values = request.query.getall("limit", [])
    if not values:
        return min(default, MAX_LIMIT)
    if len(values) > 1 or not _LIMIT.fullmatch(values[0]) or int(values[0]) < 1:
        detail = (
            f"limit must be given once, as a whole number from 1 to {MAX_LIMIT}; a larger one counts as {MAX_LIMIT}"
        )
        raise Problem(400, "invalid-parameter", detail, parameter="limit")
    return min(int(values[0]), MAX_LIMIT)


def only(request: Request, *allowed: str) -> None:
    """Raise Problem 400 unknown-parameter for a query parameter that is not one of `allowed`."""
    for name in request.query:
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            raise Problem(400, "unknown-parameter", f"allowed parameters: {known}", parameter=name[:100])


def _path_text(request: Request, segment: int) -> str | None:
    # aiohttp's own decoding keeps what is not UTF-8 as it is, so "%ff" would pass for a name.
    raw = request.rel_url.raw_path.split("/")[segment]
    try:
        return unquote_to_bytes(raw.encode(errors="surrogateescape")).decode()
    except UnicodeDecodeError:
        return None
