"""Access with tokens, without tokens, and too often; the body of an operator's request."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app import tokens
from app.settings import Settings
from tests.kit.authentication import ANN, OPERATOR, SECRET, altered, ask, set_log_level
from tests.kit.eventually import eventually
from tests.kit.makers import event
from tests.kit.problems import assert_problem
from tests.kit.streams import open_stream
from tests.kit.web import WebServer, serve


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server that requires tokens, of a shop in which everybody has bought tea."""
    settings = replace(Settings(), auth="token", token_secret=SECRET)
    with serve(tmp_path_factory.mktemp("access"), settings) as server:
        server.publish(*(event(user_id=user) for user in ["ann", "a/b", *(f"user-{n}" for n in range(20))]))
        assert ask(server, "/v1/products/tea", OPERATOR).json.get("purchases") == 22
        yield server


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    yield
    logging.getLogger("web.http.problems").setLevel(logging.NOTSET)


UNSIGNED = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhbm4ifQ."


@pytest.mark.parametrize("path", ["/v1/users/ann/purchases", "/users/ann", "/v1/products/tea", "/metrics"])
@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "token-needed"),
        ("", "invalid-token"),
        (ANN, "invalid-token"),
        (f"Basic {ANN}", "invalid-token"),
        ("Bearer", "invalid-token"),
        ("Bearer ", "invalid-token"),
        ("Bearer x.y.z", "invalid-token"),
        (f"Bearer {altered(ANN)}", "invalid-token"),
        (f"Bearer {ANN[:-5]}", "invalid-token"),
        (f"Bearer {UNSIGNED}", "invalid-token"),
        (f"Bearer {tokens.create_token('another secret of more than sixteen bytes', user='ann')}", "invalid-token"),
        (f"Bearer {tokens.create_token(SECRET, operator=True, days=-1)}", "invalid-token"),
        (f"Bearer {tokens.create_token(SECRET)}", "invalid-token"),
    ],
)
def test_without_a_valid_token_nothing_is_shown(worker: WebServer, path, authorization, code):
    answer = worker.get(path, **({} if authorization is None else {"Authorization": authorization}))
    assert_problem(answer, 401, code)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_token_in_the_query_or_in_a_cookie_counts_for_nothing(worker: WebServer):
    assert_problem(worker.get(f"/v1/users/ann/purchases?token={ANN}"), 401, "token-needed")
    assert_problem(worker.get("/v1/users/ann/purchases", Cookie=f"lately_token={ANN}"), 401, "token-needed")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.json", "/docs", "/"])
def test_what_shows_no_data_needs_no_token(worker: WebServer, path):
    assert worker.get(path).status == 200


def test_a_user_sees_their_own_data_and_all_products(worker: WebServer):
    for path in ("/v1/users/ann/purchases", "/users/ann", "/v1/products/tea", "/v1/users/%61nn/purchases"):
        assert ask(worker, path, ANN).status == 200
    assert ask(worker, "/v1/users/a%2Fb/purchases", tokens.create_token(SECRET, user="a/b")).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/users/bob/purchases",
        "/users/bob",
        "/v1/users/ann%2F/purchases",
        "/v1/users/Ann/purchases",
        "/v1/users/ann/purchases?user_id=bob",
        "/v1/products/tea?for_user=bob",
    ],
)
def test_a_user_does_not_see_anothers_data(worker: WebServer, path):
    assert_problem(ask(worker, path, ANN), 403, "not-your-data")
    assert ask(worker, path, OPERATOR).status != 403


def test_a_stream_ends_with_the_token_that_opened_it(worker: WebServer):
    short = tokens.create_token(SECRET, user="ann", days=3 / 86_400)
    with open_stream(worker, "ann", Authorization=f"Bearer {short}") as live:
        live.event()
        with pytest.raises(EOFError):
            live.read_to_end()
    assert_problem(ask(worker, "/v1/users/ann/purchases/stream", short), 401, "invalid-token")


def test_counters_and_log_levels_are_for_operators(worker: WebServer):
    assert_problem(ask(worker, "/metrics", ANN), 403, "operators-only")
    assert_problem(ask(worker, "/v1/admin/log-level", ANN, "POST"), 403, "operators-only")
    assert_problem(ask(worker, "/v1/admin/log-level", None, "POST"), 401, "token-needed")
    assert "lately_ready 1.0" in ask(worker, "/metrics", OPERATOR).text


def test_an_operator_sets_the_log_level_while_the_worker_runs(worker: WebServer):
    answer = set_log_level(worker, b'{"logger": "web.http.problems", "level": "debug"}')
    assert answer.status == 200, answer
    assert {name: answer.json[name] for name in ("logger", "level")} == {
        "logger": "web.http.problems",
        "level": "debug",
    }
    assert set_log_level(worker, b'{"logger": "web.http.problems", "level": "error"}').json["before"] == "debug"


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code", "pointer"),
    [
        (b" " * 65_537, "application/json", 413, "body-too-large", None),
        (b'{"level": "debug"}', "text/plain", 415, "unsupported-media-type", None),
        (b'{"level": "debug"}', "application/json; charset=latin-1", 415, "unsupported-media-type", None),
        (b'{"level": "debug"}', None, 415, "unsupported-media-type", None),
        *[
            (body, "application/json", 400, "malformed-json", None)
            for body in (b"", b"{", b'{"level": "\xff"}', b"{} {}", b"[" * 10_000, b"NaN")
        ],
        (b"[]", "application/json", 422, "invalid-body", ""),
        (b"{}", "application/json", 422, "invalid-body", "/level"),
        (b'{"level": 5}', "application/json", 422, "invalid-body", "/level"),
        (b'{"level": null}', "application/json", 422, "invalid-body", "/level"),
        (b'{"level": "loud"}', "application/json", 422, "invalid-body", "/level"),
        (b'{"level": "debug", "loger": "web"}', "application/json", 422, "invalid-body", "/loger"),
        (b'{"level": "debug", "a/b~c": 1}', "application/json", 422, "invalid-body", "/a~1b~0c"),
        (b'{"level": "debug", "logger": ""}', "application/json", 422, "invalid-body", "/logger"),
        (b'{"level": "debug", "logger": "no.such"}', "application/json", 422, "invalid-body", "/logger"),
    ],
)
def test_a_wrong_body_is_refused_with_its_place(worker: WebServer, body, content_type, status, code, pointer):
    answer = set_log_level(worker, body, content_type)
    assert_problem(answer, status, code)
    assert answer.json.get("errors", [{"pointer": None}])[0]["pointer"] == pointer


def test_a_chunked_body_that_is_too_large_or_broken_is_refused(worker: WebServer):
    head = (
        f"POST /v1/admin/log-level HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPERATOR}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()
    assert_problem(worker.ask_raw(head + b"11000\r\n" + b" " * 0x11000 + b"\r\n0\r\n\r\n"), 413, "body-too-large")
    assert_problem(worker.ask_raw(head + b"nonsense\r\n"), 400, "bad-request")


def test_a_body_that_does_not_come_is_given_up(worker: WebServer):
    head = f"POST /v1/admin/log-level HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPERATOR}\r\n"
    slow = worker.ask_raw(f"{head}Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{{".encode())
    assert_problem(slow, 408, "request-timeout")


def test_who_asks_too_often_has_to_wait(tmp_path: Path):
    with serve(tmp_path, replace(Settings(), rate_per_s=5)) as limited:
        _assert_that_the_rate_is_limited(limited)


def _assert_that_the_rate_is_limited(limited: WebServer) -> None:
    answers = [limited.get("/v1/nothing") for _ in range(200)]
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    for answer in refused:
        assert_problem(answer, 429, "rate-limited")
        assert answer.headers["Retry-After"] == "1"
        assert answer.json["retry_after_ms"] == 1000
    assert {answer.status for answer in answers} == {404, 429}
    assert limited.get("/livez").status == 200
    eventually(lambda: limited.get("/v1/nothing").status == 404)
