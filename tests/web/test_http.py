"""Responses to requests that are wrong, strange or slow."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit.eventually import eventually
from tests.kit.makers import event
from tests.kit.problems import assert_problem
from tests.kit.raw_http import drained, raw
from tests.kit.web import WebServer, serve

HOSTILE = "<script>alert(1)</script>"
ANN = "/v1/users/ann/purchases"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server in which ann has bought something with a name that is a script."""
    with serve(tmp_path_factory.mktemp("http")) as running:
        running.publish(event(product_name=HOSTILE))
        yield running


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", ANN, {"Accept": "image/png"}, 406, "not-acceptable"),
        ("GET", ANN, {"Accept": "application/json;q=0"}, 406, "not-acceptable"),
        ("GET", "/metrics", {"Accept": "application/json"}, 406, "not-acceptable"),
        ("GET", "/users/ann", {"Accept": "application/json"}, 406, "not-acceptable"),
        ("GET", "/v1/nothing", {}, 404, "not-found"),
        ("OPTIONS", "/v1/nothing", {}, 404, "not-found"),
        ("POST", "/v1/admin/log-level", {}, 404, "not-found"),
        *[("PUT", path, {}, 405, "method-not-allowed") for path in (ANN, "/users/ann", "/livez", "/metrics", "/docs")],
        *[(method, ANN, {}, 405, "method-not-allowed") for method in ("POST", "DELETE", "TRACE", "PATCH", "PROPFIND")],
        ("GET", "/v1/admin/log-level", {}, 404, "not-found"),
        ("HEAD", "/v1/admin/log-level", {}, 404, "not-found"),
        ("OPTIONS", "/v1/admin/log-level", {}, 404, "not-found"),
        ("GET", ANN, {"Content-Length": "65537"}, 413, "body-too-large"),
        ("GET", ANN, {"Expect": "the-unexpected"}, 417, "expectation-failed"),
        ("GET", f"{ANN}?{'x' * 16_384}", {}, 414, "line-too-long"),
        ("GET", ANN, {"X-Large": "x" * 8192}, 431, "headers-too-large"),
        ("GET", ANN, {f"X-{number}": "1" for number in range(101)}, 431, "headers-too-large"),
        ("GET", ANN, {f"X-{number}": "x" * 2_000 for number in range(20)}, 431, "headers-too-large"),
        ("GET", ANN, {"Accept": "a/b," * 600}, 431, "headers-too-large"),
        ("BREW", ANN, {}, 400, "bad-request"),
        ("GET", f"{ANN} x", {}, 400, "bad-request"),
        ("GET", ANN, {"Content-Length": "many"}, 400, "bad-request"),
        ("GET", ANN, {"Bad Name": "1"}, 400, "bad-request"),
        ("GET", ANN, {"Transfer-Encoding": "chunked", "Content-Length": "3"}, 400, "bad-request"),
    ],
)
def test_a_wrong_request_is_answered_with_a_problem(worker: WebServer, method, path, headers, status, code):
    answer = worker.ask_raw(raw(method, path, headers))
    if method == "HEAD":
        assert (answer.status, answer.body) == (status, b"")
    else:
        assert_problem(answer, status, code)
    assert ("Allow" in answer.headers) == (status == 405)


def test_a_line_that_is_not_http_is_answered_with_a_problem(worker: WebServer):
    assert_problem(worker.ask_raw(b"hello\r\n\r\n"), 400, "bad-request")
    assert_problem(worker.ask_raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"), 400, "bad-request")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [(ANN, "GET, HEAD, OPTIONS"), ("/users/ann", "GET, HEAD, OPTIONS")],
)
def test_options_says_what_is_allowed(worker: WebServer, path, allowed):
    answer = worker.get(path, method="OPTIONS")
    assert (answer.status, answer.headers["Allow"], answer.body) == (204, allowed, b"")


@pytest.mark.parametrize("path", [ANN, "/users/ann", "/", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs"])
def test_head_is_get_without_its_body(worker: WebServer, path):
    head, get = worker.get(path, method="HEAD"), worker.get(path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


@pytest.mark.parametrize("path", [ANN, f"{ANN}?limit=1", "/v1/users/ann/home", "/v1/nothing"])
def test_answers_to_requests_that_come_together_are_like_those_to_one_alone(worker: WebServer, path):
    # The former are aiohttp's to send, the latter are not.
    request = raw("GET", path, {"X-Request-ID": "one"})
    with worker.connect(request * 2) as connection, connection.makefile("rb") as answers:
        together = [read_answer(answers) for _ in range(2)]
        alone = []
        for _ in range(3):
            connection.sendall(request)
            alone.append(read_answer(answers))
    assert together + alone == [together[0]] * 5


def read_answer(answers: BinaryIO) -> tuple:
    """The first line, the headers and what is in the body of the next answer, without what the moment decides."""
    status, headers = answers.readline(), dict(http.client.parse_headers(answers))
    body = json.loads(answers.read(int(headers.pop("Content-Length"))))
    assert parsedate_to_datetime(headers.pop("Date"))
    return status, headers, body.get("purchases"), body.get("code")


@pytest.mark.parametrize(
    "accept", [None, "", "*/*", "application/*", "application/json", "image/png, */*;q=0.1", "what"]
)
def test_json_is_what_programs_get(worker: WebServer, accept):
    answer = worker.get(ANN, **({} if accept is None else {"Accept": accept}))
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Vary"] == "Accept"
    assert answer.json["purchases"][0]["product_name"] == HOSTILE


@pytest.mark.parametrize("accept", ["text/html", "text/html,application/xhtml+xml,*/*;q=0.8"])
def test_a_fragment_of_html_is_what_browsers_get_with_every_value_escaped(worker: WebServer, accept):
    answer = worker.get(ANN, Accept=accept)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "&lt;script&gt;" in answer.text
    assert "<script" not in answer.text


def test_no_answer_allows_other_sites_to_read_it(worker: WebServer):
    for path, method in [(ANN, "GET"), (ANN, "OPTIONS"), ("/v1/nothing", "GET")]:
        answer = worker.get(path, method=method, Origin="https://evil.example", Access_Control_Request_Method="GET")
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_requests_over_one_connection_are_answered_in_their_order(worker: WebServer):
    names = [str(number) for number in range(8)]
    one, *others = [
        # What is answered at once, what waits, what is refused, what is redirected, and what is there already.
        raw("GET", ANN, {"X-Request-ID": names[0]}),
        raw("GET", f"{ANN}?after_order=no&wait_ms=100", {"X-Request-ID": names[1]}),
        raw("GET", f"{ANN}?limit=0", {"X-Request-ID": names[2]}),
        raw("GET", "/?user_id=ann", {"X-Request-ID": names[3]}),
        raw("GET", ANN, {"X-Request-ID": names[4], "If-None-Match": "*"}),
        raw("HEAD", ANN, {"X-Request-ID": names[5]}),
        raw("GET", f"{ANN}%2f", {"X-Request-ID": names[6]}),
        raw("GET", ANN, {"X-Request-ID": names[7], "Connection": "close"}),
    ]
    statuses = ["200", "503", "400", "303", "304", "200", "404", "200"]
    for pieces in (
        [one, *others],
        [one[:30], one[30:] + others[0][:9], others[0][9:], *others[1:]],
        [one + b"".join(others)],
    ):
        with worker.connect(b"") as connection:
            for piece in pieces:
                connection.sendall(piece)
                answered = connection.recv(1, socket.MSG_PEEK) if piece is one else b""
                assert answered in (b"", b"H")
            came = drained(connection).decode()
        assert re.findall(r"HTTP/1\.1 (\d+)", came) == statuses
        assert re.findall(r"X-Request-ID: (\d)", came) == names


def test_a_client_that_does_not_fetch_its_answers_is_given_up(worker: WebServer):
    with worker.connect(raw("GET", "/openapi.json", {}) * 500) as deaf:
        assert open_at(worker, deaf)
        eventually(lambda: not open_at(worker, deaf), within=15)
    assert worker.get("/livez").status == 200


def open_at(worker: WebServer, connection: socket.socket) -> bool:
    """Whether the worker's end of a connection is open; the other end hears of it only when it reads."""
    ends = [f":{worker.port:04X}", f":{connection.getsockname()[1]:04X}"]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any([row[1][-5:], row[2][-5:]] == ends and row[3] == "01" for row in rows)


_BYTES = st.one_of(st.binary(max_size=60), st.sampled_from([b"%ff", b"%00", b"..", b"//", b"%2F", b"{}", b"%", b"*"]))


_PLACES = st.sampled_from(
    [b"/v1/users/", b"/v1/products/", b"/users/", b"/", b"/v1/", b"/docs/", b"/openapi.json?", b""]
)


_NAMES = st.sampled_from(
    [b"Accept", b"X-Request-ID", b"Content-Length", b"Transfer-Encoding", b"Expect", b"Upgrade", b"Connection",
     b"Content-Encoding", b"Host", b"Lately-Hop", b"Authorization", b"Cookie", b"X", b""]
)  # fmt: skip


_METHODS = st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"CONNECT", b"TRACE", b"PUT", b"NOTIFY", b"get", b""])


@st.composite
def requests(draw) -> bytes:
    """Something that is more or less a request."""
    target = (
        draw(_PLACES)
        + draw(_BYTES)
        + draw(st.sampled_from([b"", b"/purchases", b"?limit=", b"?verbose="]))
        + draw(_BYTES)
    )
    head = draw(_METHODS) + b" " + target + b" " + draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9", b""]))
    headers = draw(st.lists(st.tuples(_NAMES, st.one_of(_BYTES, st.sampled_from([b"5", b"chunked", b"gzip", b"1"])))))
    lines = [
        head,
        *[name + b": " + value for name, value in headers],
        draw(st.sampled_from([b"Connection: close", b"X-Stays: open"])),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + draw(_BYTES)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.one_of(requests(), st.binary(max_size=300)))
def test_nothing_that_is_sent_makes_the_worker_fail(worker: WebServer, sent: bytes):
    with worker.connect(sent) as connection:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(10)
        came = b""
        try:
            while data := connection.recv(65_536):
                came += data
        except ConnectionError:
            pass
    first_line = came.split(b"\r\n", 1)[0]
    assert not first_line or int(first_line.split()[1]) < 500 or b" 503 " in first_line, came
    assert b"Traceback" not in came
    assert not worker.log.tracebacks
