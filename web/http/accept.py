"""What a client wants to be answered with, from the header Accept (RFC 9110, 12.5.1)."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec
from aiohttp import hdrs
from aiohttp.web import Request, StreamResponse

from web.http.access import HOP
from web.http.prebuilt import Ready
from web.http.problems import Problem
from web.http.routes import HTML, JSON, Route
from web.pages import render

_RANGE = re.compile(r"\s*([\w!#$&^.+*-]+)/([\w!#$&^.+*-]+)\s*(?:;(.*))?", re.ASCII)
_QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", re.ASCII | re.IGNORECASE)
_FRAGMENT_HEADERS = {"Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'"}


def wanted(request: Request, route: Route) -> str:
    """The type of the route that the client likes best. Raises Problem 406 not-acceptable.

    A worker that asks for a client gets what the route has, and does the rest itself.
    """
    if hdrs.ACCEPT not in request.headers or HOP in request.headers:
        return route.media[0]
    request["media"] = chosen = choose(",".join(request.headers.getall("Accept")), route.media)
    if chosen is None:
        raise Problem(406, "not-acceptable", f"this route answers {' or '.join(route.media)}")
    return chosen


def as_fragment(request: Request) -> bool:
    """Whether the answer is to become HTML, of which a client that has the JSON has nothing."""
    return request.get("media") == HTML


def shape(answer: StreamResponse | Ready, route: Route, media: str) -> StreamResponse | Ready:
    """The answer, made a fragment of HTML of JSON where that is what is wanted."""
    if isinstance(answer, Ready):
        if media == JSON:
            return answer
        answer = answer.response()
    if len(route.media) > 1 and not answer.prepared:
        answer.headers[hdrs.VARY] = "Accept"
        if media == HTML and answer.content_type == JSON:
            answer.body = render("fragment.html", value=msgspec.json.decode(answer.body)).encode()
            answer.content_type = HTML
            answer.headers.update(_FRAGMENT_HEADERS)
            answer.headers.popall(hdrs.ETAG, None)  # it is the JSON's
    return answer


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
