"""Content negotiation by the header Accept (RFC 9110, 12.5.1)."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec
from aiohttp import hdrs
from aiohttp.web import Request, RequestKey, Response, StreamResponse

from web.http.access import HOP_HEADER
from web.http.limits import MAX_ACCEPT_CHARS
from web.http.problems import Problem
from web.http.routes import HTML, JSON, Route
from web.pages import render

#: The negotiated media type of a request with the header Accept.
_MEDIA: RequestKey[str] = RequestKey("media", str)

_RANGE = re.compile(r"\s*([\w!#$&^.+*-]+)/([\w!#$&^.+*-]+)\s*(?:;(.*))?", re.ASCII)
_QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", re.ASCII | re.IGNORECASE)
#: Limit of a header in the cache; those of browsers have some 150 characters.
MAX_CACHED_CHARS = 512
_FRAGMENT_HEADERS = {"Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'"}


def negotiate(request: Request, route: Route) -> str:
    """Return the media type of the route that the client prefers; "" if the route declares none.

    A request that another worker forwarded receives the route's first type: the other worker
    converts the response for its client.
    Raises Problem 406 not-acceptable.
    """
    offered = route.media
    if not offered:
        return ""
    if hdrs.ACCEPT not in request.headers or HOP_HEADER in request.headers:
        return offered[0]
    accept = ",".join(request.headers.getall("Accept"))
    if len(accept) > MAX_ACCEPT_CHARS:
        raise Problem(431, "headers-too-large", f"Accept has at most {MAX_ACCEPT_CHARS} characters")
    media = choose_media_type(accept, offered)
    if media is None:
        raise Problem(406, "not-acceptable", f"this route offers {' or '.join(offered)}")
    request[_MEDIA] = media
    return media


def wants_fragment(request: Request) -> bool:
    """Return True if the JSON of the response is to be converted to HTML, which has no ETag."""
    return request.get(_MEDIA) == HTML


def convert_response(response: StreamResponse, route: Route, media: str) -> StreamResponse:
    """Return the response, with its JSON converted to an HTML fragment if `media` is HTML."""
    if len(route.media) > 1 and not response.prepared:
        response.headers[hdrs.VARY] = "Accept"
        if media == HTML and isinstance(response, Response) and response.content_type == JSON:
            _convert_to_fragment(response)
    return response


def _convert_to_fragment(response: Response) -> None:
    if not isinstance(response.body, bytes):
        return
    content = msgspec.json.decode(response.body)
    response.body = render("fragment.html", value=content).encode()
    response.content_type = HTML
    response.headers.update(_FRAGMENT_HEADERS)
    response.headers.popall(hdrs.ETAG, None)  # the ETag of the JSON


def choose_media_type(accept: str, offered: tuple[str, ...]) -> str | None:
    """Return the preferred `offered` type, the first among equals; None if none is acceptable.

    Ranges that cannot be parsed are ignored. If no range can be parsed, any type is acceptable.
    """
    choose = _choose_cached if len(accept) <= MAX_CACHED_CHARS else _choose
    return choose(accept, offered)


def _choose(accept: str, offered: tuple[str, ...]) -> str | None:
    ranges = [media_range for part in accept.split(",") if (media_range := _parse_range(part))]
    if not ranges:
        return offered[0]
    best = max(offered, key=lambda media: _quality(media, ranges))
    return best if _quality(best, ranges) > 0 else None


_choose_cached = lru_cache(maxsize=256)(_choose)


def _parse_range(part: str) -> tuple[str, float] | None:
    match = _RANGE.fullmatch(part)
    if match is None:
        return None
    qualities = [quality for text in (match[3] or "").split(";") if (quality := _QUALITY.fullmatch(text))]
    return f"{match[1]}/{match[2]}".lower(), float(qualities[0][1]) if qualities else 1.0


def _quality(media: str, ranges: list[tuple[str, float]]) -> float:
    for pattern in (media, f"{media.partition('/')[0]}/*", "*/*"):
        qualities = [quality for name, quality in ranges if name == pattern]
        if qualities:
            return max(qualities)
    return 0.0
