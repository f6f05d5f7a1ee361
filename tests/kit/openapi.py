"""Requests for the operations of the API document, and checks of their responses against it."""

from __future__ import annotations

import http.client
import json
from urllib.parse import quote, urlencode

from jsonschema import Draft202012Validator

from app import tokens
from tests.kit.authentication import SECRET
from tests.kit.http_client import Answer, HttpClient

BODIES = {"LogLevel": {"logger": "web.http.problems", "level": "info"}}


def ask(worker: HttpClient, method: str, path: str, token: str | None = None, **headers: str) -> Answer:
    token = tokens.create_token(SECRET, operator=True) if token is None else token
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


def choices(path: str, operation: dict) -> list[str]:
    """One target for each value of each parameter that has a list of them."""
    named = [(one["name"], one["schema"].get("enum", [])) for one in operation["parameters"]]
    return [target(path, operation, **{name: value}) for name, values in named for value in values]


def succeed(worker: HttpClient, method: str, path: str, operation: dict) -> Answer:
    """The answer to a request as it should be: with a body where one is wanted."""
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        return post(worker, path, BODIES[schema["$ref"].rpartition("/")[2]])
    if "text/event-stream" in operation["responses"]["200"]["content"]:
        return beginning(worker, path)
    return ask(worker, method, path)


def beginning(worker: HttpClient, path: str) -> Answer:
    """The first part of an answer that never ends."""
    head = (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tokens.create_token(SECRET, operator=True)}\r\n\r\n"
    )
    with worker.connect(head.encode()) as connection, http.client.HTTPResponse(connection) as answer:
        answer.begin()
        return Answer(answer.status, dict(answer.headers), answer.read1())


def post(worker: HttpClient, path: str, body: object) -> Answer:
    text = json.dumps(body).encode()
    token = tokens.create_token(SECRET, operator=True)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(text)}\r\n"
    return worker.ask_raw(f"{head}Content-Type: application/json\r\n\r\n".encode() + text)
