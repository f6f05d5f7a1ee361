"""Conditional GET: a weak ETag, and 304 for a client that has the content (RFC 9110, 13.1.2)."""

from __future__ import annotations

import hashlib
import re

import msgspec
from aiohttp import hdrs
from aiohttp.web import Request, Response

from web.http.accept import wants_fragment
from web.http.prebuilt import ETAG, PRIVATE_JSON_HEADERS

# aiohttp's `if_none_match` ignores all but the first header and stops at an empty list element.
_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')

_encode = msgspec.json.Encoder().encode


def compute_etag(content: bytes) -> str:
    """Return the weak ETag of a response that `content` identifies."""
    return f'W/"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


def is_not_modified(request: Request, etag: str) -> bool:
    """Return True if the client has the response of this ETag (weak comparison)."""
    if hdrs.IF_NONE_MATCH not in request.headers or wants_fragment(request):
        return False
    field = ",".join(request.headers.getall(hdrs.IF_NONE_MATCH)).strip()
    return field == "*" or etag.removeprefix("W/") in _ETAG.findall(field)


def json_response(
    request: Request, content: object, identity: bytes | None = None, link: str | None = None
) -> Response:
    """Return `content` as JSON, or 304.

    `identity` is hashed to the ETag instead of the JSON if that contains more than the content.
    `link` is the URL of the next page.
    """
    body = _encode(content)
    return etag_response(request, body, compute_etag(body if identity is None else identity), link)


def etag_response(request: Request, body: bytes, etag: str, link: str | None = None) -> Response:
    """Return encoded JSON whose ETag is computed already, or 304.

    `link` is the URL of the next page.
    """
    headers = {**PRIVATE_JSON_HEADERS, ETAG: etag}
    if link is not None:
        headers[hdrs.LINK] = f'<{link}>; rel="next"'
    if is_not_modified(request, etag):
        del headers[hdrs.CONTENT_TYPE]
        return Response(status=304, headers=headers)
    return Response(body=body, headers=headers)
