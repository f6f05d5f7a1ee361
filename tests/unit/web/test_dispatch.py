"""A mounted view receives its context and the request, and its result becomes the response."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from aiohttp import hdrs
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import Application, Request, Response, StreamResponse
from msgspec import Struct

from app.settings import Settings
from web.http.dispatch import create_dispatcher, mount, mounted_routes
from web.http.prebuilt import PrebuiltResponse
from web.http.problems import Problem
from web.http.routes import JSON, Access, Route, View
from web.http.server import prepare

PREBUILT = PrebuiltResponse(b'{"a":"<b>"}', 'W/"0a"')


class Greeting(Struct):
    """A response of the test."""

    text: str


@Route("/prebuilt/{name}", "A prebuilt response")
def get_prebuilt(context: str, request: Request) -> PrebuiltResponse:
    return PREBUILT


@Route("/etag", "A structure with an ETag", headers=("ETag",))
def get_with_etag(context: str, request: Request) -> Greeting:
    return Greeting(context)


@Route("/private", "A structure without an ETag")
async def get_private(context: str, request: Request) -> Greeting:
    return Greeting(context)


@Route("/open", "A structure of an open route", Access.OPEN, (JSON,))
def get_open(context: str, request: Request) -> Greeting:
    return Greeting(context)


@Route("/write", "A route of POST", method="post", media=(JSON,))
def write(context: str, request: Request) -> Greeting:
    return Greeting(request.method)


VIEWS: tuple[View[str], ...] = (get_prebuilt, get_with_etag, get_private, get_open, write)


@pytest.fixture
def application() -> Application:
    """An application with the views of this module, mounted with the context "hello"."""
    application = Application()
    prepare(application)
    mount(application, "hello", VIEWS)
    return application


def dispatch(application: Application, path: str, method: str = "GET", **headers: str) -> Any:
    """The result of a request, after its coroutine if it has one."""
    request = make_mocked_request(
        method, path, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )

    async def handle() -> StreamResponse | PrebuiltResponse:
        request._match_info = await application.router.resolve(request)
        result = create_dispatcher(application, Settings())(request)
        return await result if isinstance(result, Coroutine) else result

    return asyncio.run(handle())


def test_a_prebuilt_response_passes_unchanged(application):
    assert dispatch(application, "/prebuilt/a") is PREBUILT
    assert dispatch(application, "/prebuilt/a", Accept="application/json") is PREBUILT


def test_a_prebuilt_response_becomes_a_fragment_if_the_client_prefers_html(application):
    response = dispatch(application, "/prebuilt/a", Accept="text/html")
    assert (response.content_type, response.headers["Vary"]) == ("text/html", "Accept")
    assert "ETag" not in response.headers
    assert b"&lt;b&gt;" in response.body


def test_a_structure_becomes_json_with_the_etag_that_the_route_declares(application):
    response = dispatch(application, "/etag")
    assert (response.body, response.content_type, response.headers["Vary"]) == (b'{"text":"hello"}', JSON, "Accept")
    assert response.headers["Cache-Control"] == "private, no-cache"
    etag = response.headers["ETag"]
    assert dispatch(application, "/etag", If_None_Match=etag).status == 304
    assert dispatch(application, "/etag", If_None_Match='"other"').status == 200


def test_only_a_response_about_a_user_is_declared_private(application):
    assert dispatch(application, "/private").headers["Cache-Control"] == "private, no-cache"
    response = dispatch(application, "/open")
    assert (response.body, response.headers["Content-Type"]) == (b'{"text":"hello"}', f"{JSON}; charset=utf-8")
    assert "Cache-Control" not in response.headers
    assert "Vary" not in response.headers, "the route has one media type"


@pytest.mark.parametrize("values", [['"a"', 'W/"b"'], ['"a", , "b"'], [', "b"'], ["*"], ['"b"']])
def test_every_list_of_etags_is_compared_weakly(application, values):
    etag = dispatch(application, "/etag").headers["ETag"].removeprefix("W/")
    request_headers = [(hdrs.IF_NONE_MATCH, value.replace('"b"', etag)) for value in values]
    request = make_mocked_request("GET", "/etag", headers=request_headers)
    request._match_info = asyncio.run(application.router.resolve(request))
    response = create_dispatcher(application, Settings())(request)
    assert isinstance(response, Response)
    assert response.status == 304


def test_a_view_of_get_also_serves_head_and_a_view_of_post_only_post(application):
    assert dispatch(application, "/open", "HEAD").status == 200
    assert dispatch(application, "/write", "POST").body == b'{"text":"POST"}'
    with pytest.raises(Exception, match="Method Not Allowed"):
        dispatch(application, "/write", "GET")
    with pytest.raises(Exception, match="Not Found"):
        dispatch(application, "/missing")


def test_a_media_type_that_the_route_does_not_offer_is_refused(application):
    with pytest.raises(Problem, match="this route offers application/json") as caught:
        dispatch(application, "/open", Accept="text/html")
    assert (caught.value.status, caught.value.code) == (406, "not-acceptable")


def test_the_mounted_routes_are_listed_once_in_their_order(application):
    assert mounted_routes(application) == [view.route for view in VIEWS]
