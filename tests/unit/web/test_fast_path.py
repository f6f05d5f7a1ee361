"""The fast path finds the routes that the router finds, and sends the bytes that aiohttp sends."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import StreamWriter
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import AbstractRoute, Application, Request, Response, StreamResponse, UrlDispatcher
from hypothesis import given
from hypothesis import strategies as st

from web.application import VIEWS
from web.http.accept import convert_response
from web.http.dispatch import mount
from web.http.fast_path import RouteTrie, to_bytes
from web.http.prebuilt import PrebuiltResponse
from web.http.routes import HTML
from web.http.server import prepare


async def view(request: Request) -> StreamResponse:
    raise NotImplementedError


def create_router() -> UrlDispatcher:
    """All routes of a worker, and one whose variable matches only some segments."""
    application = Application()
    prepare(application)
    mount(application, None, VIEWS)
    application.router.add_get("/v1/numbers/{number:[0-9]+}", view)
    return application.router


ROUTER = create_router()
TRIE = RouteTrie(ROUTER)
DECLARED = {view.route.path: view.route for view in VIEWS}
SEGMENTS = sorted(
    {segment for path in DECLARED for segment in path.split("/") if "{" not in segment} | {"ann", ".", "é", "1", "%2F"}
)
paths = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=6).map("/".join).map("/{}".format)


def resolve(path: str) -> tuple[AbstractRoute, dict[str, str]] | None:
    """The route that aiohttp's router finds for GET."""
    match = asyncio.run(ROUTER.resolve(make_mocked_request("GET", path)))
    return None if match.http_exception else (match.route, dict(match))


@pytest.mark.parametrize("pattern", [path for path, route in DECLARED.items() if route.method == "get"])
def test_every_route_is_found_by_its_path(pattern):
    path = pattern.replace("{", "").replace("}", "")
    match = TRIE.find(path)
    assert (match.route, dict(match)) == resolve(path)


@given(paths)
def test_the_trie_finds_the_route_that_the_router_finds(path):
    match = TRIE.find(path)
    assert match is None or (match.route, dict(match)) == resolve(path)


def test_a_variable_that_matches_only_some_segments_is_left_to_the_router():
    assert TRIE.find("/v1/numbers/1") is None
    assert resolve("/v1/numbers/1") is not None


class RecordingTransport:
    """A transport that stores the bytes that are written to it."""

    def __init__(self) -> None:
        self.content = b""

    def is_closing(self) -> bool:
        return False

    def write(self, content: bytes) -> None:
        self.content += content


def send_with_aiohttp(response: Response) -> bytes:
    """The bytes that aiohttp sends."""

    async def send() -> bytes:
        protocol = BaseProtocol(asyncio.get_running_loop())
        protocol.transport = transport = RecordingTransport()
        request = make_mocked_request("GET", "/", writer=StreamWriter(protocol, asyncio.get_running_loop()))
        await response.prepare(request)
        await response.write_eof()
        return transport.content

    return asyncio.run(send())


def split(sent: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, headers in the order of their names, body."""
    head, _, body = sent.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    return status, sorted(headers), body


DATE = {"Date": "Thu, 01 Jan 1970 00:00:00 GMT"}
COMMON_HEADERS = {"X-Request-ID": "mine", "X-Content-Type-Options": "nosniff", "Server": "lately"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"body": b"{}", "headers": {"Content-Type": "application/json", **DATE}},
        {"body": b"{}", "headers": DATE},
        {"body": b"", "headers": DATE},
        {"body": "é".encode(), "headers": {"Content-Type": "text/plain", "ETag": 'W/"a"', "Link": "<é>", **DATE}},
        {"body": b"no", "status": 503, "headers": {"Retry-After": "1", **DATE}},
    ],
)
def test_the_fast_path_sends_the_bytes_that_aiohttp_sends(arguments):
    request = make_mocked_request("GET", "/", headers={"X-Request-ID": "mine"})
    expected = Response(**arguments)
    expected.headers.update(COMMON_HEADERS)
    assert split(to_bytes(request, Response(**arguments))) == split(send_with_aiohttp(expected))


def test_a_prebuilt_response_is_sent_as_aiohttp_sends_it():
    request = make_mocked_request("GET", "/", headers={"X-Request-ID": "mine"})
    prebuilt = PrebuiltResponse('{"é":1}'.encode(), 'W/"0a"')
    response = prebuilt.to_response()
    response.headers.update(COMMON_HEADERS)
    sent, expected = (to_bytes(request, prebuilt), send_with_aiohttp(response))
    date = re.compile(rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
    assert len(date.findall(sent)) == 1
    assert split(date.sub(b"", sent)) == split(date.sub(b"", expected))


def test_a_prebuilt_response_becomes_a_fragment_like_any_response():
    route = DECLARED["/v1/users/{user_id}/purchases"]
    prebuilt = PrebuiltResponse(b'{"a":"<b>"}', 'W/"0a"')
    fragment = convert_response(prebuilt.to_response(), route, HTML)
    assert (fragment.content_type, fragment.headers["Vary"]) == (HTML, "Accept")
    assert "ETag" not in fragment.headers, "the ETag identifies the JSON"
    assert b"&lt;b&gt;" in fragment.body


def test_a_response_has_its_date():
    assert b"\r\nDate: " in to_bytes(make_mocked_request("GET", "/"), Response(body=b"{}"))


def test_responses_that_need_aiohttp_are_left_to_it():
    request = make_mocked_request("GET", "/")
    closing, compressed, with_cookie = (Response(body=b"{}") for _ in range(3))
    closing.force_close()
    compressed.enable_compression()
    with_cookie.set_cookie("a", "b")
    responses = [
        Response(status=304), Response(status=204), Response(), StreamResponse(), closing, compressed, with_cookie,
    ]  # fmt: skip
    assert [to_bytes(request, response) for response in responses] == [None] * len(responses)
