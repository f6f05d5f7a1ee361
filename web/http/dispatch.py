"""Mounts views into an aiohttp application and passes each request to its view.

Order for each request: access check, choice of the media type, view, conversion of the result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from types import CoroutineType
from typing import NamedTuple

import msgspec
from aiohttp.web import AbstractRoute, AppKey, Application, Request, Response, StreamResponse
from msgspec import Struct

from app.settings import Settings
from web.http.accept import convert_response, negotiate
from web.http.access import create_access_check
from web.http.conditional import json_response
from web.http.handlers import AnyResponse, C, Handler, HandlerResult, ViewResponse, ViewResult
from web.http.prebuilt import ETAG, PRIVATE_JSON_HEADERS, PrebuiltResponse
from web.http.routes import JSON, UNLISTED, Access, Route, View

_VARIABLE = re.compile(r"\{(\w+)\}")

_encode = msgspec.json.Encoder().encode


class Endpoint(NamedTuple):
    """A mounted route and the view that handles its requests."""

    route: Route
    handle: Callable[[Request], ViewResult]


#: The endpoints of an application by aiohttp route; 404 and 405 have none.
ENDPOINTS: AppKey[dict[AbstractRoute, Endpoint]] = AppKey("endpoints", dict)


def mount(application: Application, context: C, views: Iterable[View[C]]) -> None:
    """Serve `views`; each receives `context` and the request. A view of GET also serves HEAD."""
    for view in views:
        pattern = _VARIABLE.sub(r"{\1:[^/]*}", view.route.path)
        endpoint = Endpoint(view.route, partial(view.function, context))
        for method in ("GET", "HEAD") if view.route.method == "get" else (view.route.method.upper(),):
            add_endpoint(application, method, pattern, endpoint)


def add_endpoint(application: Application, method: str, pattern: str, endpoint: Endpoint) -> None:
    """Serve one method of a path; `pattern` is a path in aiohttp's notation."""
    application[ENDPOINTS][application.router.add_route(method, pattern, _not_dispatched)] = endpoint


def mounted_routes(application: Application) -> list[Route]:
    """Return the declared routes of an application, in the order of their mounting."""
    routes = dict.fromkeys(endpoint.route for endpoint in application[ENDPOINTS].values())
    return [route for route in routes if route is not UNLISTED]


async def _not_dispatched(request: Request) -> StreamResponse:
    raise NotImplementedError("create_dispatcher calls the endpoint instead of aiohttp's handler")


def create_dispatcher(application: Application, settings: Settings) -> Handler:
    """Return the handler of all requests whose route is resolved."""
    check_access = create_access_check(settings)
    endpoints = application[ENDPOINTS]

    def dispatch(request: Request) -> HandlerResult:
        match = request.match_info
        endpoint = endpoints.get(match.route)
        if endpoint is None:
            check_access(request, None)
            raise match.http_exception or LookupError(f"{match.route} has no endpoint")
        route, handle = endpoint
        check_access(request, route)
        media = negotiate(request, route)
        result = handle(request)
        if isinstance(result, CoroutineType):
            return _convert_later(request, result, route, media)
        return _convert(request, result, route, media)  # type: ignore[arg-type]  # a coroutine is a CoroutineType

    return dispatch


async def _convert_later(
    request: Request, result: Coroutine[None, None, ViewResponse], route: Route, media: str
) -> AnyResponse:
    return _convert(request, await result, route, media)


def _convert(request: Request, result: ViewResponse, route: Route, media: str) -> AnyResponse:
    if type(result) is PrebuiltResponse:
        return result if media == JSON else convert_response(result.to_response(), route, media)
    response = _encode_struct(request, result, route) if isinstance(result, Struct) else result
    return convert_response(response, route, media)


def _encode_struct(request: Request, content: Struct, route: Route) -> Response:
    if ETAG in route.headers:
        return json_response(request, content)
    headers = (
        PRIVATE_JSON_HEADERS if route.access is Access.OWN else {"Content-Type": "application/json; charset=utf-8"}
    )
    return Response(body=_encode(content), headers=headers)
