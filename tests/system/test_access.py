"""Tokens between workers, in logs and on the command line, and addresses that need them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app import tokens
from local.process import find_free_port
from tests.kit.authentication import ANN, OPERATOR, SECRET, TOKEN_MODE, altered, ask, set_log_level
from tests.kit.commands import FAUST_WORKER, run_to_end
from tests.kit.eventually import eventually
from tests.kit.makers import event, wire
from tests.kit.problems import assert_problem
from tests.kit.stack import PYTHON, Stack, Worker

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


def test_a_token_goes_with_a_request_to_the_worker_that_owns_the_user(stack: Stack, worker: Worker):
    second = stack.worker("second", **TOKEN_MODE).start().wait_ready()
    eventually(lambda: worker.get("/readyz").status == 200, within=60)
    by_whom = set()
    for user in USERS:
        answer = ask(second, f"/v1/users/{user}/purchases", tokens.create_token(SECRET, user=user))
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
    assert set_log_level(worker, b'{"logger": "root", "level": "debug"}').status == 200
    assert ask(worker, "/v1/users/ann/purchases", ANN).status == 200
    assert ask(worker, "/v1/users/bob/purchases", ANN).status == 403
    assert ask(worker, "/v1/users/bob/purchases", altered(ANN)).status == 401
    assert set_log_level(worker, b'{"logger": "root", "level": "info"}').status == 200
    log = worker.process.log.read_text()
    for secret in (SECRET, ANN, OPERATOR, ANN.rpartition(".")[2], OPERATOR.rpartition(".")[2]):
        assert secret not in log
    assert "Traceback" not in log


def test_without_tokens_an_address_that_others_reach_is_refused(stack: Stack):
    code, output = run_to_end(stack, FAUST_WORKER, LATELY_WEB_HOST="0.0.0.0", LATELY_WEB_PORT=str(find_free_port()))  # noqa: S104
    assert code == 2
    assert "lately: LATELY_AUTH is none, and 0.0.0.0 can be reached from other machines" in output
    assert "LATELY_AUTH_INSECURE=1" in output
    assert "Traceback" not in output


def test_faust_options_do_not_get_around_that(stack: Stack):
    bind = [*FAUST_WORKER, "--web-bind", "0.0.0.0"]  # noqa: S104
    code, output = run_to_end(stack, bind, LATELY_WEB_PORT=str(find_free_port()))
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
