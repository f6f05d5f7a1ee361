"""Requests that schemathesis derives from the API document: valid ones, and ones that break the schema."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from app.settings import Settings
from tests.kit.authentication import OPERATOR, SECRET
from tests.kit.depth import examples
from tests.kit.makers import event
from tests.kit.web import WebServer, serve
from web.application import VIEWS
from web.http.routes import EVENTS

#: Routes with an end; test_streams.py tests the streams.
ROUTES = {view.route.path: view.route for view in VIEWS if EVENTS not in view.route.media}
CONFORMANCE = [
    checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance,
    checks.response_headers_conformance,
]  # fmt: skip
#: A 503 is described where a server is missing, and a 414 refuses more than the schema does.
INTERNAL_ERROR, LINE_TOO_LONG = 500, 414


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server whose user ann has bought a Phone."""
    with serve(tmp_path_factory.mktemp("api"), replace(Settings(), auth="token", token_secret=SECRET)) as server:
        server.publish(event(user_id="ann", product_name="Phone"), event(user_id="bob"))
        yield server


@pytest.fixture
def log_levels() -> Iterator[None]:
    """Restore the levels that an operator's requests set."""
    levels = {name: logging.getLogger(name).level for name in [None, *logging.root.manager.loggerDict]}
    yield
    for name in [None, *logging.root.manager.loggerDict]:
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


@cache
def read_schema(address: str) -> schemathesis.BaseSchema:
    """The API document of a server."""
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.usefixtures("log_levels")
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", sorted(ROUTES))
def test_every_response_is_as_described(worker: WebServer, path: str, mode: GenerationMode):
    (operation,) = read_schema(worker.address)[path].values()

    @settings(examples(60), database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
    @given(case=operation.as_strategy(generation_mode=mode))
    def request(case: schemathesis.Case) -> None:
        response = case.call(base_url=worker.address, headers={"Authorization": f"Bearer {OPERATOR}"}, timeout=60)
        assert response.status_code != INTERNAL_ERROR, response.text
        refusal = [] if response.status_code == LINE_TOO_LONG else [checks.negative_data_rejection]
        case.validate_response(response, checks=CONFORMANCE + refusal)

    try:
        request()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        assert not ROUTES[path].parameters, "no request can break its schema"
    assert worker.log.tracebacks == []
