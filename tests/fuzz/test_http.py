"""What a client can send in a header, a parameter or a token."""

from __future__ import annotations

from collections.abc import Iterator

import jwt
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from app import tokens
from app.errors import BadToken
from app.tokens import Caller
from domain.events import is_valid_user_id
from domain.product_history import HistoryPosition
from domain.values import parse_rfc3339
from tests.kit.authentication import SECRET
from tests.kit.fuzz import NESTING, fuzz, inputs, samples, texts
from tests.kit.makers import event
from tests.kit.web import WebServer, serve
from web.application import VIEWS
from web.http import cursor
from web.http.accept import negotiate
from web.http.conditional import compute_etag, is_not_modified
from web.http.problems import Problem

KEY, BOUND_TO = b"k" * 32, ("ann", 5)


@fuzz
@given(texts("cursor"))
def test_a_cursor_is_what_was_written_or_invalid(text: str):
    try:
        position = cursor.read(KEY, BOUND_TO, text, HistoryPosition)
    except Problem as problem:
        assert (problem.status, problem.code) == (400, "invalid-cursor")
    else:
        assert cursor.write(KEY, BOUND_TO, position) == text


def test_every_sample_of_a_cursor_is_read():
    for sample in samples("cursor"):
        assert cursor.read(KEY, BOUND_TO, sample.decode(), HistoryPosition).row_count == 1


@fuzz
@given(texts("token"), st.sampled_from(["", "lately"]))
def test_a_token_names_its_caller_or_is_bad(text: str, audience: str):
    try:
        caller = tokens.read_token([SECRET, "another secret of more than 32 bytes"], text, audience=audience)
    except BadToken as exc:
        assert str(exc) == ""
    else:
        check_caller(caller)


def check_caller(caller: Caller) -> None:
    assert caller.is_operator or caller.user is not None
    assert caller.user is None or is_valid_user_id(caller.user)
    # The time that remains is a number.
    assert caller.expires_at is None or float(caller.expires_at) - 1.0 < 2**63


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
claim_values = st.one_of(
    json_values, st.sampled_from(["ann", "operator", 10**400, 2**31, 1e300, "\ud800", "..", "x" * 1_000, True])
)


@fuzz
@given(st.dictionaries(st.sampled_from(["sub", "scope", "exp", "nbf", "iat", "aud", "lately_hop"]), claim_values))
def test_a_signed_token_with_any_claims_names_its_caller_or_is_bad(claims: dict[str, object]):
    # PyJWT checks some claims before it signs them.
    text = jwt.api_jws.encode(jwt.api_jwt.json.dumps(claims).encode(), SECRET, algorithm="HS256")
    try:
        caller = tokens.read_token([SECRET], text)
    except BadToken:
        return
    check_caller(caller)


@pytest.mark.parametrize("part", [0, 1])
def test_a_deep_token_is_bad(part: int):
    parts = samples("token")[0].decode().split(".")
    parts[part] = jwt.utils.base64url_encode(b"[" * NESTING).decode()
    with pytest.raises(BadToken):
        tokens.read_token([SECRET], ".".join(parts))


def as_headers(name: str, values: list[str]) -> CIMultiDict[str]:
    """The headers of a request: aiohttp decodes bytes that are not UTF-8 with surrogates, its mock does not."""
    return CIMultiDict([(name, value.encode(errors="replace").decode()) for value in values])


@fuzz
@given(st.lists(texts("accept"), max_size=3))
def test_any_accept_chooses_an_offered_type_or_is_refused(values: list[str]):
    headers = as_headers("Accept", values)
    for view in VIEWS:
        try:
            media = negotiate(make_mocked_request("GET", "/", headers=headers), view.route)
        except Problem as problem:
            assert (problem.status, problem.code) == (406, "not-acceptable")
        else:
            assert media in view.route.media or not view.route.media


@fuzz
@given(st.lists(texts("etag"), max_size=3))
def test_any_list_of_etags_contains_the_etag_or_not(values: list[str]):
    etag = compute_etag(b"content")
    headers = as_headers("If-None-Match", values)
    request = make_mocked_request("GET", "/", headers=headers)
    if is_not_modified(request, etag):
        assert any("*" in value or etag.removeprefix("W/") in value for value in values)


@fuzz
@given(texts("time"))
def test_a_time_is_parsed_or_a_value_error(text: str):
    try:
        parsed = parse_rfc3339(text)
    except ValueError:
        return
    assert 1 <= parsed.year <= 9999


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server without tokens, whose user ann has bought something."""
    with serve(tmp_path_factory.mktemp("headers")) as server:
        server.publish(event(user_id="ann"))
        yield server


header_bytes = st.one_of(
    *(inputs(decoder) for decoder in ("accept", "etag", "traceparent", "token", "cursor", "time"))
).map(lambda data: bytes(byte for byte in data if byte not in b"\r\n\0"))
names = [b"Accept", b"If-None-Match", b"Last-Event-ID", b"traceparent", b"Lately-Hop", b"Authorization", b"Range",
         b"X-Request-ID", b"Cookie", b"If-Modified-Since"]  # fmt: skip


@fuzz
@given(headers=st.lists(st.tuples(st.sampled_from(names), header_bytes), max_size=4))
@pytest.mark.parametrize("path", [b"/v1/users/ann/purchases", b"/v1/users/ann/purchases/stream"])
def test_no_header_is_an_error_of_the_server(worker: WebServer, path: bytes, headers: list[tuple[bytes, bytes]]):
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    head = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n" % (path, lines)
    with worker.connect(head) as connection:
        status_line = connection.makefile("rb").readline()
    assert status_line.split()[1] in (b"200", b"304", b"400", b"406", b"431"), status_line
    assert worker.log.tracebacks == []
