"""What a client wants to be answered with, from the header Accept (RFC 9110, 12.5.1)."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec
from aiohttp.web import Request, Response, StreamResponse, middleware

from web import routes
from web.access import HOP
from web.errors import Handler, Problem
from web.pages import render

_RANGE = re.compile(r"\s*([\w!#$&^.+*-]+)/([\w!#$&^.+*-]+)\s*(?:;(.*))?", re.ASCII)
_QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", re.ASCII | re.IGNORECASE)
_FRAGMENT_HEADERS = {"Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'"}


@middleware
async def negotiated(request: Request, handler: Handler) -> StreamResponse:
    """Answer in a type that the client accepts: a JSON route also as a fragment of HTML. Raises Problem 406.

    A worker that asks for a client does this itself.
    """
    route = routes.of(request)
    if route is None or not route.media or HOP in request.headers:
        return await handler(request)
    chosen = choose(",".join(request.headers.getall("Accept", ())), route.media)
    if chosen is None:
        raise Problem(406, "not-acceptable", f"this route answers {' or '.join(route.media)}")
    response = await handler(request)
    if len(route.media) > 1 and not response.prepared:
        response.headers["Vary"] = "Accept"
        if chosen == "text/html" and response.content_type == "application/json":
            _as_fragment(response)
    return response


@lru_cache(maxsize=256)
def choose(accept: str, offered: tuple[str, ...]) -> str | None:
    """The type of `offered` that `accept` likes best, of equals the first; None when it likes none.

    What cannot be read in `accept` is ignored, and so is all of it when nothing can.
    """
    ranges = [found for part in accept.split(",") if (found := _read(part))]
    if not ranges:
        return offered[0]
    best = max(offered, key=lambda media: _quality(media, ranges))
    return best if _quality(best, ranges) > 0 else None


def _read(part: str) -> tuple[str, float] | None:
    match = _RANGE.fullmatch(part)
    if match is None:
        return None
    qualities = [found for one in (match[3] or "").split(";") if (found := _QUALITY.fullmatch(one))]
    return f"{match[1]}/{match[2]}".lower(), float(qualities[0][1]) if qualities else 1.0


def _quality(media: str, ranges: list[tuple[str, float]]) -> float:
    for wanted in (media, f"{media.partition('/')[0]}/*", "*/*"):
        qualities = [quality for name, quality in ranges if name == wanted]
        if qualities:
            return max(qualities)
    return 0.0


def _as_fragment(response: Response) -> None:
    response.body = render("fragment.html", value=msgspec.json.decode(response.body)).encode()
    response.content_type = "text/html"
    response.headers.update(_FRAGMENT_HEADERS)
