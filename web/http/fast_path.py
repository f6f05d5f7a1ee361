"""The short way of a request that waits for nothing: found by its path, answered, and sent in one piece.

What aiohttp does in a dozen coroutines for any answer, for those whose bytes are all there.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import hdrs
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import _serialize_headers
from aiohttp.web import (
    AbstractRoute,
    Application,
    Request,
    Response,
    StreamResponse,
    UrlDispatcher,
    UrlMappingMatchInfo,
)

from web.http.prebuilt import Ready
from web.http.problems import Answered, Handler, request_id, stamp


class _Place:
    """A place in a path: what may follow as it is written, what follows in place of anything, and who ends here."""

    __slots__ = ("fixed", "names", "route", "variable")

    def __init__(self) -> None:
        self.fixed: dict[str, _Place] = {}
        self.variable: _Place | None = None
        self.route: AbstractRoute | None = None
        self.names: tuple[str, ...] = ()


class Paths:
    """The routes of GET as a tree of their parts. Where none is found the router may still have one."""

    def __init__(self, router: UrlDispatcher) -> None:
        self._root = _Place()
        for route in router.routes():
            if route.method == "GET":
                self._add(route)

    def _add(self, route: AbstractRoute) -> None:
        parts = route.resource.canonical.split("/")
        names = {place: part[1:-1] for place, part in enumerate(parts) if part.startswith("{")}
        pattern = "/".join(f"(?P<{names[place]}>[^/]*)" if place in names else part for place, part in enumerate(parts))
        if names and route.resource.get_info()["pattern"].pattern != pattern:
            return  # a part that may not be just anything is the router's affair
        here = self._root
        for place, part in enumerate(parts):
            if place in names:
                here.variable = here.variable or _Place()
                here = here.variable
            else:
                here = here.fixed.setdefault(part, _Place())
        here.route = here.route or route
        here.names = here.names or tuple(names.values())

    def find(self, path: str) -> UrlMappingMatchInfo | None:
        """The route of a path as it was sent; None also where a part of it is encoded."""
        if "%" in path:
            return None
        here, values = self._root, []
        for part in path.split("/"):
            following = here.fixed.get(part)
            if following is None:
                following = here.variable
                if following is None:
                    return None
                values.append(part)
            here = following
        if here.route is None:
            return None
        return UrlMappingMatchInfo(dict(zip(here.names, values, strict=True)), here.route)


def shortcut(app: Application, answer: Handler) -> Callable[[Request], Answered | None]:
    """What begins to answer a request without a task; None where that is not its way."""
    paths = Paths(app.router)

    def at_once(request: Request) -> Answered | None:
        match = paths.find(request.rel_url.raw_path)
        if match is None or hdrs.EXPECT in request.headers:
            return None
        match.add_app(app)
        match.freeze()
        request._match_info = match  # noqa: SLF001 - as Application does
        try:
            return answer(request)
        except Exception as exc:
            return _raised(exc)

    return at_once


async def _raised(exc: Exception) -> Response:
    raise exc


def in_one_piece(request: Request, response: StreamResponse | Ready) -> bytes | None:
    """All bytes of the answer to a GET over a connection that stays open; None for one that has to be sent otherwise.

    The same bytes as aiohttp would send.
    """
    if response.__class__ is Ready:
        return response.in_one_piece(request_id(request))
    body = response.body if response.__class__ is Response else None
    if (
        body.__class__ is not bytes
        or response.status in (204, 304)
        or response.keep_alive is False
        or response.chunked
        or response.compression
        or response._cookies  # noqa: SLF001 - asking for `cookies` makes some
    ):
        return None
    headers = response.headers
    headers[hdrs.CONTENT_LENGTH] = str(len(body))
    if body and hdrs.CONTENT_TYPE not in headers:
        headers[hdrs.CONTENT_TYPE] = "application/octet-stream"
    if hdrs.DATE not in headers:
        headers[hdrs.DATE] = rfc822_formatted_time()
    stamp(request, response)
    return _serialize_headers(f"HTTP/1.1 {response.status} {response.reason}", headers) + body
