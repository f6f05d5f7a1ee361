"""Fast path for requests that need not wait: no task, and one write for the whole response.

It replaces a dozen of aiohttp's coroutines for responses whose bytes are complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from aiohttp import hdrs
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import _serialize_headers
from aiohttp.web import (
    AbstractRoute,
    Application,
    Request,
    Response,
    UrlDispatcher,
    UrlMappingMatchInfo,
)

from web.http.handlers import AnyResponse, Handler, HandlerResult
from web.http.prebuilt import PrebuiltResponse
from web.http.problems import request_id, set_common_headers

FastPath = Callable[[Request], HandlerResult | None]


class _TrieNode:
    """A segment of a path: its literal and variable successors, and the route that ends in it."""

    __slots__ = ("literals", "names", "route", "variable")

    def __init__(self) -> None:
        self.literals: dict[str, _TrieNode] = {}
        self.variable: _TrieNode | None = None
        self.route: AbstractRoute | None = None
        self.names: tuple[str, ...] = ()


class RouteTrie:
    """The GET routes of a router, as a trie of path segments.

    It contains only routes whose variables match any segment. The router handles all others.
    """

    def __init__(self, router: UrlDispatcher) -> None:
        self._root = _TrieNode()
        for route in router.routes():
            if route.method == "GET":
                self._add(route)

    def _add(self, route: AbstractRoute) -> None:
        resource = route.resource
        if resource is None:
            return
        segments = resource.canonical.split("/")
        names = {index: segment[1:-1] for index, segment in enumerate(segments) if segment.startswith("{")}
        pattern = "/".join(
            f"(?P<{names[i]}>[^/]*)" if i in names else re.escape(segment) for i, segment in enumerate(segments)
        )
        if names and resource.get_info()["pattern"].pattern != pattern:
            return
        node = self._root
        for index, segment in enumerate(segments):
            if index in names:
                node.variable = node.variable or _TrieNode()
                node = node.variable
            else:
                node = node.literals.setdefault(segment, _TrieNode())
        node.route = node.route or route
        node.names = node.names or tuple(names.values())

    def find(self, path: str) -> UrlMappingMatchInfo | None:
        """Return the match of a raw path; None if no route matches or the path has an escape."""
        if "%" in path:
            return None
        node, values = self._root, []
        for segment in path.split("/"):
            successor = node.literals.get(segment)
            if successor is None:
                successor = node.variable
                if successor is None:
                    return None
                values.append(segment)
            node = successor
        if node.route is None:
            return None
        return UrlMappingMatchInfo(dict(zip(node.names, values, strict=True)), node.route)


def create_fast_path(application: Application, handler: Handler) -> FastPath:
    """Return a function that starts to handle a request without a task.

    It returns None if the task of the connection has to handle the request."""
    trie = RouteTrie(application.router)

    def fast_path(request: Request) -> HandlerResult | None:
        match = trie.find(request.rel_url.raw_path)
        if match is None or hdrs.EXPECT in request.headers:
            return None
        match.add_app(application)
        match.freeze()
        request._match_info = match  # noqa: SLF001 - as Application does
        try:
            return handler(request)
        except Exception as exc:
            return _raise(exc)

    return fast_path


async def _raise(exc: Exception) -> Response:
    raise exc


def to_bytes(request: Request, response: AnyResponse) -> bytes | None:
    """Return the bytes that aiohttp would send for a GET over a persistent connection.

    None if the response has to be sent by aiohttp.
    """
    if type(response) is PrebuiltResponse:
        return response.to_bytes(request_id(request))
    if type(response) is not Response:
        return None
    body = response.body
    if (
        type(body) is not bytes
        or response.status in (204, 304)
        or response.keep_alive is False
        or response.chunked
        or response.compression
        or response._cookies  # noqa: SLF001 - reading `cookies` creates them
    ):
        return None
    headers = response.headers
    headers[hdrs.CONTENT_LENGTH] = str(len(body))
    if body and hdrs.CONTENT_TYPE not in headers:
        headers[hdrs.CONTENT_TYPE] = "application/octet-stream"
    if hdrs.DATE not in headers:
        headers[hdrs.DATE] = rfc822_formatted_time()
    set_common_headers(request, response)
    return _serialize_headers(f"HTTP/1.1 {response.status} {response.reason}", headers) + body
