"""The document of the API is what the API does."""

from __future__ import annotations

import html
import http.client
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app import tokens
from tests.kit.authentication import SECRET, TOKEN_MODE
from tests.kit.eventually import eventually
from tests.kit.makers import event, wire
from tests.kit.stack import ROOT, Answer, Stack, Worker
from web.application import VIEWS
from web.problem_types import PROBLEM_TYPES

BODIES = {"LogLevel": {"logger": "web.http.problems", "level": "info"}}


@pytest.fixture(scope="module")
def worker(servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker whose user ann has bought a Phone."""
    with Stack(servers, tmp_path_factory.mktemp("openapi")) as stack:
        stack.create_orders()
        one = stack.worker(**TOKEN_MODE).start().wait_ready()
        stack.publish("orders", wire(event(user_id="ann", product_name="Phone")), wire(event(user_id="bob")))
        eventually(lambda: ask(one, "get", "/v1/products/Phone").status == 200, within=30)
        yield one


@pytest.fixture(scope="module")
def document(worker: Worker) -> dict:
    """What the worker says it does."""
    return worker.get("/openapi.json").json


def ask(worker: Worker, method: str, path: str, token: str | None = None, **headers: str) -> Answer:
    token = tokens.issue(SECRET, operator=True) if token is None else token
    return worker.get(path, method.upper(), Authorization=f"Bearer {token}", **headers)


def operations(document: dict) -> list[tuple[str, str, dict]]:
    return [(path, method, one) for path, ways in document["paths"].items() for method, one in ways.items()]


def target(path: str, operation: dict, **changes: object) -> str:
    """The path and query with every parameter's example in it, or with what `changes` says instead."""
    query = {}
    for parameter in operation["parameters"]:
        value = changes.pop(parameter["name"], parameter.get("example"))
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", quote(str(value), safe=""))
        elif parameter["in"] == "query" and value is not None:
            query[parameter["name"]] = value
    return f"{path}?{urlencode({**query, **changes}, doseq=True)}"


def closed(schema: object) -> object:
    """The schema without room for fields that it does not name."""
    if isinstance(schema, dict):
        shut = {"additionalProperties": False} if "properties" in schema else {}
        return {**{name: closed(one) for name, one in schema.items()}, **shut}
    return [closed(one) for one in schema] if isinstance(schema, list) else schema


def check(document: dict, operation: dict, answer: Answer) -> None:
    """The answer's status, type and body are what the document says of the operation."""
    described = operation["responses"].get(str(answer.status))
    assert described, f"{answer.status} is not described: {answer}"
    media = answer.headers["Content-Type"].partition(";")[0]
    assert media in described["content"], f"{media} is not described: {answer}"
    if media.endswith("json"):
        schema = {**described["content"][media]["schema"], "components": document["components"]}
        Draft202012Validator(closed(schema)).validate(answer.json)
    if answer.status >= 400 and media.endswith("json"):
        assert f"`{answer.json['code']}`" in described["description"], answer
    for name in described["headers"]:
        needed = document["components"]["headers"][name]["required"]
        assert name in answer.headers or not needed, f"{name} is missing: {answer}"


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


def test_every_operation_answers_as_described(worker: Worker, document: dict):
    for path, method, operation in operations(document):
        for asked in [target(path, operation), *choices(path, operation)]:
            answer = succeed(worker, method, asked, operation)
            assert answer.status == 200, (asked, answer)
            check(document, operation, answer)


def choices(path: str, operation: dict) -> list[str]:
    """One target for each value of each parameter that has a list of them."""
    named = [(one["name"], one["schema"].get("enum", [])) for one in operation["parameters"]]
    return [target(path, operation, **{name: value}) for name, values in named for value in values]


def succeed(worker: Worker, method: str, path: str, operation: dict) -> Answer:
    """The answer to a request as it should be: with a body where one is wanted."""
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        return post(worker, path, BODIES[schema["$ref"].rpartition("/")[2]])
    if "text/event-stream" in operation["responses"]["200"]["content"]:
        return beginning(worker, path)
    return ask(worker, method, path)


def beginning(worker: Worker, path: str) -> Answer:
    """The first part of an answer that never ends."""
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tokens.issue(SECRET, operator=True)}\r\n\r\n"
    with worker.connect(head.encode()) as connection, http.client.HTTPResponse(connection) as answer:
        answer.begin()
        return Answer(answer.status, dict(answer.headers), answer.read1())


def post(worker: Worker, path: str, body: object) -> Answer:
    text = json.dumps(body).encode()
    token = tokens.issue(SECRET, operator=True)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(text)}\r\n"
    return worker.ask_raw(f"{head}Content-Type: application/json\r\n\r\n".encode() + text)


def test_every_operation_answers_in_every_type_that_is_described(worker: Worker, document: dict):
    for path, method, operation in operations(document):
        described = operation["responses"]["200"]["content"]
        if method == "get" and "text/event-stream" not in described:
            for media in described:
                answer = ask(worker, method, target(path, operation), Accept=media)
                assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (200, media)
                check(document, operation, answer)


def test_who_has_the_content_is_told_so_where_that_is_described(worker: Worker, document: dict):
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


def test_every_operation_refuses_as_described(worker: Worker, document: dict):
    for path, method, operation in operations(document):
        good = target(path, operation)
        wrong = [
            ask(worker, method, good, Accept="image/png"),
            ask(worker, method, good, Content_Length="65537"),
            ask(worker, method, f"{good}&{'x' * 9000}"),
            ask(worker, method, good, X_Large="x" * 9000),
        ]
        if "security" in operation:
            wrong += [worker.get(good, method.upper()), ask(worker, method, good, token="x.y.z")]
            wrong += [ask(worker, method, good, token=tokens.issue(SECRET, user="eve"))]
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


def test_every_other_method_is_refused(worker: Worker, document: dict):
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


def test_the_page_shows_the_whole_document_and_loads_nothing_of_others(worker: Worker, document: dict):
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
