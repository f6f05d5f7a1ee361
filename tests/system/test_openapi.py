"""The document of the API is what the API does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.authentication import TOKEN_MODE
from tests.kit.eventually import eventually
from tests.kit.makers import event, wire
from tests.kit.openapi import ask, check, choices, operations, succeed, target
from tests.kit.stack import Stack, Worker


@pytest.fixture(scope="module")
def worker(servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker whose user ann has bought a Phone."""
    with Stack(servers, tmp_path_factory.mktemp("openapi")) as stack:
        stack.create_orders()
        one = stack.worker(**TOKEN_MODE).start().wait_ready()
        stack.publish("orders", wire(event(user_id="ann", product_name="Phone")), wire(event(user_id="bob")))
        # Totals and similar products follow the purchases in transactions of their own.
        for path in ("/v1/products/Phone", "/v1/products/Phone/similar"):
            eventually(lambda path=path: ask(one, "get", path).status == 200, within=30)
        yield one


@pytest.fixture(scope="module")
def document(worker: Worker) -> dict:
    """What the worker says it does."""
    return worker.get("/openapi.json").json


def test_every_operation_answers_as_described(worker: Worker, document: dict):
    for path, method, operation in operations(document):
        for asked in [target(path, operation), *choices(path, operation)]:
            answer = succeed(worker, method, asked, operation)
            assert answer.status == 200, (asked, answer)
            check(document, operation, answer)


def test_every_operation_answers_in_every_type_that_is_described(worker: Worker, document: dict):
    for path, method, operation in operations(document):
        described = operation["responses"]["200"]["content"]
        if method == "get" and "text/event-stream" not in described:
            for media in described:
                answer = ask(worker, method, target(path, operation), Accept=media)
                assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (200, media)
                check(document, operation, answer)
