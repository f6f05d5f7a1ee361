"""The short way finds what the router finds, and sends what aiohttp sends."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import StreamWriter
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import Request, Response, StreamResponse, UrlDispatcher
from hypothesis import given
from hypothesis import strategies as st

from web.http.accept import shape
from web.http.fast_path import Paths, in_one_piece
from web.http.prebuilt import Ready
from web.http.routes import HTML, JSON, ROUTES


async def view(request: Request) -> StreamResponse:
    raise NotImplementedError


def router() -> UrlDispatcher:
    """All our routes, and one whose variable part may not be just anything."""
    found = UrlDispatcher()
    for path, route in ROUTES.items():
        found.add_route(route.method, path.replace("}", ":[^/]*}"), view)
    found.add_get("/v1/numbers/{number:[0-9]+}", view)
    return found


ROUTER = router()
PATHS = Paths(ROUTER)
PARTS = sorted({part for path in ROUTES for part in path.split("/") if "{" not in part} | {"ann", ".", "é", "1", "%2F"})
some_paths = st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map("/".join).map("/{}".format)


def routed(path: str) -> tuple | None:
    """What aiohttp's router finds for GET."""
    match = asyncio.run(ROUTER.resolve(make_mocked_request("GET", path)))
    return None if match.http_exception else (match.route, dict(match))


@pytest.mark.parametrize("path", [path for path, route in ROUTES.items() if route.method == "get"])
def test_every_route_is_found_by_its_path(path):
    asked = path.replace("{", "").replace("}", "")
    match = PATHS.find(asked)
    assert (match.route, dict(match)) == routed(asked)


@given(some_paths)
def test_what_is_found_is_what_the_router_finds(path):
    match = PATHS.find(path)
    assert match is None or (match.route, dict(match)) == routed(path)


def test_a_part_that_may_not_be_anything_is_left_to_the_router():
    assert PATHS.find("/v1/numbers/1") is None
    assert routed("/v1/numbers/1") is not None


class Sent:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.content = b""

    def is_closing(self) -> bool:
        return False

    def write(self, content: bytes) -> None:
        self.content += content


def by_aiohttp(response: Response) -> bytes:
    """What aiohttp sends."""

    async def send() -> bytes:
        protocol = BaseProtocol(asyncio.get_running_loop())
        protocol.transport = sent = Sent()
        request = make_mocked_request("GET", "/", writer=StreamWriter(protocol, asyncio.get_running_loop()))
        await response.prepare(request)
        await response.write_eof()
        return sent.content

    return asyncio.run(send())


def parts(sent: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, headers in the order of their names, body."""
    head, _, body = sent.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    return status, sorted(headers), body


THEN = {"Date": "Thu, 01 Jan 1970 00:00:00 GMT"}


@pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey")
@pytest.mark.parametrize(
    "said",
    [
        {"body": b"{}", "headers": {"Content-Type": "application/json", **THEN}},
        {"body": b"{}", "headers": THEN},
        {"body": b"", "headers": THEN},
        {"body": "é".encode(), "headers": {"Content-Type": "text/plain", "ETag": 'W/"a"', "Link": "<é>", **THEN}},
        {"body": b"no", "status": 503, "headers": {"Retry-After": "1", **THEN}},
    ],
)
def test_what_is_sent_in_one_piece_is_what_aiohttp_sends(said):
    request = make_mocked_request("GET", "/", headers={"X-Request-ID": "mine"})
    theirs = Response(**said)
    theirs.headers.update({"X-Request-ID": "mine", "X-Content-Type-Options": "nosniff", "Server": "lately"})
    assert parts(in_one_piece(request, Response(**said))) == parts(by_aiohttp(theirs))


@pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey")
def test_what_is_ready_is_sent_as_aiohttp_sends_it():
    request = make_mocked_request("GET", "/", headers={"X-Request-ID": "mine"})
    ready = Ready('{"é":1}'.encode(), 'W/"0a"')
    theirs = ready.response()
    theirs.headers.update({"X-Request-ID": "mine", "X-Content-Type-Options": "nosniff", "Server": "lately"})
    ours, expected = (in_one_piece(request, ready), by_aiohttp(theirs))
    date = re.compile(rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
    assert len(date.findall(ours)) == 1
    assert parts(date.sub(b"", ours)) == parts(date.sub(b"", expected))


def test_what_is_ready_is_shaped_like_any_answer():
    route = ROUTES["/v1/users/{user_id}/purchases"]
    ready = Ready(b'{"a":"<b>"}', 'W/"0a"')
    fragment = shape(ready, route, HTML)
    assert shape(ready, route, JSON) is ready
    assert (fragment.content_type, fragment.headers["Vary"]) == (HTML, "Accept")
    assert "ETag" not in fragment.headers, "that of the JSON stands for the JSON"
    assert b"&lt;b&gt;" in fragment.body


@pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey")
def test_an_answer_says_when_it_was_given():
    assert b"\r\nDate: " in in_one_piece(make_mocked_request("GET", "/"), Response(body=b"{}"))


def test_what_has_to_be_sent_otherwise_is_left_to_aiohttp():
    request = make_mocked_request("GET", "/")
    closing, packed, with_cookie = (Response(body=b"{}") for _ in range(3))
    closing.force_close()
    packed.enable_compression()
    with_cookie.set_cookie("a", "b")
    others = [Response(status=304), Response(status=204), Response(), StreamResponse(), closing, packed, with_cookie]
    assert [in_one_piece(request, one) for one in others] == [None] * len(others)
