"""Slow clients of a busy worker, and the pages of Faust."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.eventually import eventually
from tests.kit.makers import event, wire
from tests.kit.problems import assert_problem
from tests.kit.raw_http import drained, raw
from tests.kit.stack import Stack, Worker

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def stack(servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A shop in which ann has bought something with a name that is a script."""
    with Stack(servers, tmp_path_factory.mktemp("http")) as one:
        yield one


@pytest.fixture(scope="module")
def worker(stack: Stack) -> Worker:
    """One worker for all."""
    one = stack.worker().start().wait_ready()
    stack.publish("orders", wire(event(product_name=HOSTILE)))
    eventually(lambda: len(one.purchases("ann")) == 1, within=30)
    return one


def test_slow_and_idle_clients_are_closed_while_the_worker_goes_on(stack: Stack, worker: Worker):
    half_a_head = worker.connect(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    nothing = worker.connect(b"")
    half_a_body = worker.connect(raw("GET", "/livez", {"Content-Length": "100"}, "half"))
    idle = worker.connect(raw("GET", "/livez", {}))
    before = worker.events()
    stack.publish("orders", *[wire(event(user_id=f"user-{number}")) for number in range(500)])
    for name, connection in {"head": half_a_head, "nothing": nothing, "body": half_a_body, "idle": idle}.items():
        with connection:
            assert drained(connection, trickle=name == "head") is not None, f"{name}: not closed"
    eventually(lambda: worker.events() == before + 500, within=30)
    assert worker.get("/livez").status == 200


@pytest.mark.parametrize("page", ["table", "router", "graph", "stats", "table/by_user"])
def test_no_page_of_faust_is_served(worker: Worker, page: str):
    assert_problem(worker.ask_raw(raw("GET", f"/{page}", {})), 404, "not-found")
