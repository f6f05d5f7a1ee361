"""Answers that a client need not fetch twice: a weak ETag of the content, and 304 for who has it (RFC 9110, 13.1.2)."""

from __future__ import annotations

import hashlib
import re

import msgspec
from aiohttp import hdrs
from aiohttp.web import Request, Response

from web.http.accept import as_fragment
from web.http.prebuilt import ETAG, HEADERS

_TAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')

_encode = msgspec.json.Encoder().encode


def tag(content: bytes) -> str:
    """The ETag of an answer whose content `content` stands for."""
    return f'W/"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


def known(request: Request, etag: str) -> bool:
    """Whether the client has what `etag` stands for; compared weakly."""
    if hdrs.IF_NONE_MATCH not in request.headers or as_fragment(request):
        return False
    given = ",".join(request.headers.getall(hdrs.IF_NONE_MATCH)).strip()
    return given == "*" or etag.removeprefix("W/") in _TAG.findall(given)


def answer(
    request: Request, content: dict[str, object] | bytes, identity: bytes | None = None, link: str | None = None
) -> Response:
    """`content` in JSON, or 304; `identity` stands for it where it says more than counts, `link` is the next page."""
    body = content if isinstance(content, bytes) else _encode(content)
    return tagged(request, body, tag(body if identity is None else identity), link)


def tagged(request: Request, body: bytes, etag: str, link: str | None = None) -> Response:
    """JSON whose ETag is known, or 304."""
    headers = {**HEADERS, ETAG: etag}
    if link is not None:
        headers[hdrs.LINK] = f'<{link}>; rel="next"'
    if known(request, etag):
        del headers[hdrs.CONTENT_TYPE]
        return Response(status=304, headers=headers)
    return Response(body=body, headers=headers)
