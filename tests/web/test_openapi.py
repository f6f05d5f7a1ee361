"""The API document is complete, and every operation refuses requests as it describes."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app import tokens
from app.settings import Settings
from tests.kit.authentication import SECRET
from tests.kit.makers import event
from tests.kit.openapi import ask, check, closed, operations, target
from tests.kit.stack import ROOT
from tests.kit.web import WebServer, serve
from web.application import VIEWS
from web.problem_types import PROBLEM_TYPES


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server whose user ann has bought a Phone."""
    settings = replace(Settings(), auth="token", token_secret=SECRET)
    with serve(tmp_path_factory.mktemp("openapi"), settings) as server:
        server.publish(event(user_id="ann", product_name="Phone"), event(user_id="bob"))
        yield server


@pytest.fixture(scope="module")
def document(worker: WebServer) -> dict:
    """The API document."""
    return worker.get("/openapi.json").json


def test_the_document_is_a_valid_openapi_3_1(document: dict):
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    ids = [one["operationId"] for _, _, one in operations(document)]
    assert len(ids) == len(set(ids))


def test_every_route_is_in_the_document_and_nothing_else(document: dict):
    declared = set()
    for source in (ROOT / "web").glob("*.py"):
        declared |= set(re.findall(r'@Route\(\s*"(.*?)"', source.read_text()))
    assert declared == set(document["paths"])
    assert {view.route.path for view in VIEWS} == declared


def test_who_has_the_content_is_told_so_where_that_is_described(worker: WebServer, document: dict):
    tagged = [one for one in operations(document) if "304" in one[2]["responses"]]
    assert len(tagged) == 10
    for path, _method, operation in tagged:
        good = target(path, operation)
        etag = ask(worker, "get", good).headers["ETag"]
        for given in (etag, "*", f'"other", {etag}', f", {etag.removeprefix('W/')}"):
            answer = ask(worker, "get", good, If_None_Match=given)
            assert (answer.status, answer.headers["ETag"], answer.text) == (304, etag, ""), (path, given, answer)
            assert "Content-Type" not in answer.headers
        assert ask(worker, "get", good, If_None_Match='"other"').status == 200
        if "text/html" in operation["responses"]["200"]["content"]:
            assert ask(worker, "get", good, If_None_Match=etag, Accept="text/html").status == 200


def test_every_operation_refuses_as_described(worker: WebServer, document: dict):
    for path, method, operation in operations(document):
        good = target(path, operation)
        wrong = [
            ask(worker, method, good, Accept="image/png"),
            ask(worker, method, good, Content_Length="65537"),
            ask(worker, method, f"{good}&{'x' * 17_000}"),
            ask(worker, method, good, X_Large="x" * 9000),
        ]
        if "security" in operation:
            wrong += [worker.get(good, method.upper()), ask(worker, method, good, token="x.y.z")]
            wrong += [ask(worker, method, good, token=tokens.create_token(SECRET, user="eve"))]
        if "`unknown-parameter`" in operation["responses"]["400"]["description"]:
            wrong.append(ask(worker, method, target(path, operation, limt=5)))
        for parameter in operation["parameters"]:
            for value in bad_values(parameter):
                wrong.append(ask(worker, method, target(path, operation, **{parameter["name"]: value})))
        for answer in wrong:
            if answer.status != 200:
                check(document, operation, answer)
        assert {406, 413, 414, 431} <= {answer.status for answer in wrong}, (path, wrong)


def bad_values(parameter: dict) -> list[str]:
    """Values that the parameter's schema does not allow, and one that no path can hold."""
    schema = parameter["schema"]
    if parameter["in"] == "path":
        return ["x" * (schema["maxLength"] + 1), "\x00"]
    if schema["type"] == "integer":
        return ["0", "-1", "1e3", "", "x"]
    return ["\x00", "no such value"] if "enum" in schema else []


def test_every_other_method_is_refused(worker: WebServer, document: dict):
    problem = {"$ref": "#/components/schemas/ProblemDetails", "components": document["components"]}
    for path, method, operation in operations(document):
        allowed = {"get": "GET, HEAD, OPTIONS", "post": "OPTIONS, POST"}[method]
        for other in {"GET", "POST", "PUT", "DELETE", "PATCH", "TRACE"} - set(allowed.split(", ")):
            answer = ask(worker, other, target(path, operation))
            assert (answer.status, answer.headers["Allow"]) == (405, allowed), (path, answer)
            Draft202012Validator(closed(problem)).validate(answer.json)
        answer = ask(worker, "options", target(path, operation))
        assert (answer.status, answer.headers["Allow"]) == (204, allowed)


def test_every_problem_that_is_raised_is_described(document: dict):
    raised = set()
    for source in (ROOT / "web").glob("*.py"):
        text = source.read_text()
        raised |= {(code, int(status)) for status, code in re.findall(r'Problem\(\s*(\d{3}), "([a-z-]+)"', text)}
    documented = {
        (code, int(status))
        for status, codes in re.findall(
            r"^\| (\d{3}) \| (.*?) \|", (ROOT / "docs" / "protocol.md").read_text(), re.MULTILINE
        )
        for code in re.findall(r"`([a-z-]+)`", codes)
    }
    assert raised <= {(code, status) for code, (status, _) in PROBLEM_TYPES.items()}
    assert raised <= documented


def test_the_page_shows_the_whole_document_and_loads_nothing_of_others(worker: WebServer, document: dict):
    page = worker.get("/docs")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "<script" not in page.text
    assert not re.search(r'(?:src|href)="(?!#|/openapi\.json|/assets/|data:,)', page.text)
    shown = html.unescape(re.sub("</?code>", "`", page.text))
    assert "<code>HEAD</code> is <code>GET</code> without the body" in page.text
    for path, method, operation in operations(document):
        assert f"{method.upper()} {path}" in page.text
        for parameter in operation["parameters"]:
            assert parameter["description"] in shown
    for name in document["components"]["schemas"]:
        assert f'id="{name}"' in page.text
