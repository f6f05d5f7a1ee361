"""Who may ask for what: with tokens, without, and too often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app import tokens
from local.process import free_port
from tests.kit.authentication import SECRET, TOKEN_MODE
from tests.kit.commands import FAUST_WORKER, run_to_end
from tests.kit.eventually import eventually
from tests.kit.makers import event, wire
from tests.kit.problems import assert_problem
from tests.kit.stack import PYTHON, Answer, Stack, Worker
from tests.kit.streams import open_stream

USERS = [f"user-{number}" for number in range(20)]


@pytest.fixture(scope="module")
def stack(servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A shop in which everybody has bought something."""
    with Stack(servers, tmp_path_factory.mktemp("access")) as one:
        one.publish_after = [wire(event(user_id=user)) for user in ["ann", "a/b", *USERS]]
        yield one


@pytest.fixture(scope="module")
def worker(stack: Stack) -> Worker:
    """A worker that wants tokens."""
    one = stack.worker(**TOKEN_MODE).start().wait_ready()
    stack.publish("orders", *stack.publish_after)
    eventually(lambda: ask(one, "/v1/products/tea", OPERATOR).json.get("purchases") == 22, within=30)
    return one


OPERATOR = tokens.issue(SECRET, operator=True)
ANN = tokens.issue(SECRET, user="ann", days=1)


def ask(worker: Worker, path: str, token: str | None, method: str = "GET", **headers: str) -> Answer:
    return worker.get(path, method, **({"Authorization": f"Bearer {token}"} if token else {}), **headers)


def altered(token: str) -> str:
    """The token with one bit of its signature flipped."""
    head, _, signature = token.rpartition(".")
    flipped = "A" if signature[10] != "A" else "B"
    return f"{head}.{signature[:10]}{flipped}{signature[11:]}"


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
        (f"Bearer {tokens.issue('another secret of some length', user='ann')}", "invalid-token"),
        (f"Bearer {tokens.issue(SECRET, operator=True, days=-1)}", "invalid-token"),
        (f"Bearer {tokens.issue(SECRET)}", "invalid-token"),
    ],
)
def test_without_a_valid_token_nothing_is_shown(worker: Worker, path, authorization, code):
    answer = worker.get(path, **({} if authorization is None else {"Authorization": authorization}))
    assert_problem(answer, 401, code)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_token_in_the_query_or_in_a_cookie_counts_for_nothing(worker: Worker):
    assert_problem(worker.get(f"/v1/users/ann/purchases?token={ANN}"), 401, "token-needed")
    assert_problem(worker.get("/v1/users/ann/purchases", Cookie=f"lately_token={ANN}"), 401, "token-needed")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.json", "/docs", "/"])
def test_what_shows_no_data_needs_no_token(worker: Worker, path):
    assert worker.get(path).status == 200


def test_a_user_sees_their_own_data_and_all_products(worker: Worker):
    for path in ("/v1/users/ann/purchases", "/users/ann", "/v1/products/tea", "/v1/users/%61nn/purchases"):
        assert ask(worker, path, ANN).status == 200
    assert ask(worker, "/v1/users/a%2Fb/purchases", tokens.issue(SECRET, user="a/b")).status == 200


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
def test_a_user_does_not_see_anothers_data(worker: Worker, path):
    assert_problem(ask(worker, path, ANN), 403, "not-your-data")
    assert ask(worker, path, OPERATOR).status != 403


def test_a_stream_ends_with_the_token_that_opened_it(worker: Worker):
    short = tokens.issue(SECRET, user="ann", days=3 / 86_400)
    with open_stream(worker, "ann", Authorization=f"Bearer {short}") as live:
        live.event()
        with pytest.raises(EOFError):
            live.read_to_end()
    assert_problem(ask(worker, "/v1/users/ann/purchases/stream", short), 401, "invalid-token")


def test_counters_and_log_levels_are_for_operators(worker: Worker):
    assert_problem(ask(worker, "/metrics", ANN), 403, "operators-only")
    assert_problem(ask(worker, "/v1/admin/log-level", ANN, "POST"), 403, "operators-only")
    assert_problem(ask(worker, "/v1/admin/log-level", None, "POST"), 401, "token-needed")
    assert "lately_ready 1.0" in ask(worker, "/metrics", OPERATOR).text


def order(worker: Worker, body: bytes, content_type: str | None = "application/json") -> Answer:
    """What POST /v1/admin/log-level says to a body."""
    headers = {"Authorization": f"Bearer {OPERATOR}", "Host": "x", "Content-Length": str(len(body))}
    headers |= {} if content_type is None else {"Content-Type": content_type}
    lines = ["POST /v1/admin/log-level HTTP/1.1", *[f"{name}: {text}" for name, text in headers.items()]]
    return worker.ask_raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def test_an_operator_sets_the_log_level_while_the_worker_runs(worker: Worker):
    answer = order(worker, b'{"logger": "web.http.problems", "level": "debug"}')
    assert answer.status == 200, answer
    assert {name: answer.json[name] for name in ("logger", "level")} == {
        "logger": "web.http.problems",
        "level": "debug",
    }
    assert order(worker, b'{"logger": "web.http.problems", "level": "error"}').json["before"] == "debug"


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
def test_a_wrong_body_is_refused_with_its_place(worker: Worker, body, content_type, status, code, pointer):
    answer = order(worker, body, content_type)
    assert_problem(answer, status, code)
    assert answer.json.get("errors", [{"pointer": None}])[0]["pointer"] == pointer


def test_a_chunked_body_that_is_too_large_or_broken_is_refused(worker: Worker):
    head = (
        f"POST /v1/admin/log-level HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPERATOR}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()
    assert_problem(worker.ask_raw(head + b"11000\r\n" + b" " * 0x11000 + b"\r\n0\r\n\r\n"), 413, "body-too-large")
    assert_problem(worker.ask_raw(head + b"nonsense\r\n"), 400, "bad-request")


def test_a_body_that_does_not_come_is_given_up(worker: Worker):
    head = f"POST /v1/admin/log-level HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPERATOR}\r\n"
    slow = worker.ask_raw(f"{head}Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{{".encode())
    assert_problem(slow, 408, "request-timeout")


def test_a_token_goes_with_a_request_to_the_worker_that_owns_the_user(stack: Stack, worker: Worker):
    second = stack.worker("second", **TOKEN_MODE).start().wait_ready()
    eventually(lambda: worker.get("/readyz").status == 200, within=60)
    by_whom = set()
    for user in USERS:
        answer = ask(second, f"/v1/users/{user}/purchases", tokens.issue(SECRET, user=user))
        assert answer.status == 200, answer
        assert len(answer.json["purchases"]) == 1
        by_whom.add(answer.json["meta"]["worker"])
        assert_problem(ask(second, f"/v1/users/{user}/purchases", ANN), 403, "not-your-data")
        fragment = ask(second, f"/v1/users/{user}/purchases", OPERATOR, Accept="text/html")
        assert (fragment.status, fragment.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "<dt>product_name</dt><dd>tea</dd>" in fragment.text
    assert len(by_whom) == 2, "one worker cannot own all partitions"
    second.stop()
    eventually(lambda: worker.get("/readyz").status == 200, within=60)


def test_no_log_holds_a_token_or_the_secret(worker: Worker):
    assert_problem(
        worker.ask_raw(f"GET / HTTP/1.1\r\nAuthorization: Bearer {ANN}\x00\r\n\r\n".encode()), 400, "bad-request"
    )
    assert_problem(worker.ask_raw(f"GET /{ANN} x HTTP/1.1\r\n\r\n".encode()), 400, "bad-request")
    assert order(worker, b'{"logger": "root", "level": "debug"}').status == 200
    assert ask(worker, "/v1/users/ann/purchases", ANN).status == 200
    assert ask(worker, "/v1/users/bob/purchases", ANN).status == 403
    assert ask(worker, "/v1/users/bob/purchases", altered(ANN)).status == 401
    assert order(worker, b'{"logger": "root", "level": "info"}').status == 200
    log = worker.process.log.read_text()
    for secret in (SECRET, ANN, OPERATOR, ANN.rpartition(".")[2], OPERATOR.rpartition(".")[2]):
        assert secret not in log
    assert "Traceback" not in log


def test_who_asks_too_often_has_to_wait(stack: Stack):
    limited = stack.worker("limited", LATELY_RATE_PER_S="5", LATELY_ID=f"{stack.name}-limited").start().wait_ready()
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
    limited.stop()


def test_without_tokens_an_address_that_others_reach_is_refused(stack: Stack):
    code, output = run_to_end(stack, FAUST_WORKER, LATELY_WEB_HOST="0.0.0.0", LATELY_WEB_PORT=str(free_port()))  # noqa: S104
    assert code == 2
    assert "lately: LATELY_AUTH is none, and 0.0.0.0 can be reached from other machines" in output
    assert "LATELY_AUTH_INSECURE=1" in output
    assert "Traceback" not in output


def test_faust_options_do_not_get_around_that(stack: Stack):
    bind = [*FAUST_WORKER, "--web-bind", "0.0.0.0"]  # noqa: S104
    code, output = run_to_end(stack, bind, LATELY_WEB_PORT=str(free_port()))
    assert code == 2
    assert "can be reached from other machines" in output


@pytest.mark.parametrize("env", [TOKEN_MODE, {"LATELY_AUTH_INSECURE": "1"}])
def test_with_tokens_or_when_told_so_it_is_served(stack: Stack, env):
    open_one = stack.worker("open", LATELY_WEB_HOST="0.0.0.0", LATELY_ID=f"{stack.name}-open", **env)  # noqa: S104
    open_one.start().wait_ready().stop()


@pytest.mark.parametrize("secret", ["", "fifteen bytes.."])
def test_tokens_without_a_good_secret_end_with_2(stack: Stack, secret):
    code, output = run_to_end(stack, FAUST_WORKER, LATELY_AUTH="token", LATELY_TOKEN_SECRET=secret)
    assert code == 2
    assert output.startswith("lately: LATELY_TOKEN_SECRET must have 16 bytes or more")
    assert secret not in output.removeprefix("lately") or not secret


def test_the_command_token_prints_one_that_works(stack: Stack, worker: Worker):
    lately = [PYTHON, "-m", "app", "token"]
    code, printed = run_to_end(stack, [*lately, "--user", "ann", "--days", "30"], **TOKEN_MODE)
    assert code == 0
    assert ask(worker, "/v1/users/ann/purchases", printed).status == 200
    code, printed = run_to_end(stack, [*lately, "--operator"], **TOKEN_MODE)
    assert ask(worker, "/metrics", printed).status == 200
    assert run_to_end(stack, [*lately, "--operator"])[0] == 2
    assert run_to_end(stack, lately, **TOKEN_MODE)[0] == 2
    assert run_to_end(stack, [*lately, "--user", "."], **TOKEN_MODE)[0] == 2
