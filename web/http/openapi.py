"""Builds the OpenAPI 3.1 document from the declarations of the routes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus

import msgspec
from msgspec import Struct

from web.http.problems import ProblemType
from web.http.routes import HTML, JSON, Access, Parameter, Route
from web.http.schemas import ProblemDetails

#: A JSON object, such as a part of the document.
JsonObject = dict[str, object]

#: Problems of every route.
_COMMON_PROBLEMS = (
    "bad-request",
    "not-acceptable",
    "body-too-large",
    "line-too-long",
    "headers-too-large",
    "expectation-failed",
    "internal-error",
)
_TOKEN_PROBLEMS = ("token-needed", "invalid-token", "rate-limited")
_ACCESS_PROBLEMS: dict[Access, tuple[str, ...]] = {
    Access.OPEN: (),
    Access.OWN: (*_TOKEN_PROBLEMS, "not-your-data"),
    Access.OPERATOR: (*_TOKEN_PROBLEMS, "operators-only"),
    Access.ADMIN: (*_TOKEN_PROBLEMS, "operators-only"),
}
_HEADERS: dict[str, tuple[str, JsonObject]] = {
    "X-Request-ID": ("The request's id: the client's or a new one", {"type": "string"}),
    "Retry-After": ("Seconds to wait before the next request", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": ("Bearer", {"type": "string"}),
    "ETag": ("Identifies the content; weak for JSON", {"type": "string"}),
    "Link": ('The next page, `rel="next"`', {"type": "string"}),
}
#: JSON has an ETag, the HTML made from it has none; the last page has no next page.
_OPTIONAL_HEADERS = ("ETag", "Link")


def build_document(
    info: JsonObject, tags: Sequence[str], routes: Iterable[Route], problem_types: Mapping[str, ProblemType]
) -> JsonObject:
    """Return the document; `info` is its OpenAPI info object."""
    routes = list(routes)
    paths: dict[str, JsonObject] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = _operation(route, problem_types)
    return {
        "openapi": "3.1.0",
        "info": info,
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in tags],
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "headers": {
                name: {"description": description, "schema": schema, "required": name not in _OPTIONAL_HEADERS}
                for name, (description, schema) in _HEADERS.items()
            },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "`lately token` creates one. Required with LATELY_AUTH=token.",
                }
            },
        },
    }


def _schemas(routes: Iterable[Route]) -> JsonObject:
    """Return the JSON Schema (2020-12) of every structure of the routes, by name."""
    structs: set[type[Struct]] = {ProblemDetails}
    for route in routes:
        structs |= {struct for struct in (route.response, route.body) if struct is not None}
    ordered = sorted(structs, key=lambda struct: struct.__name__)
    schemas: JsonObject = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")[1]
    return schemas


def _operation(route: Route, problem_types: Mapping[str, ProblemType]) -> JsonObject:
    words = [word.strip("{}").replace("-", "_").replace(".", "_") for word in route.path.split("/") if word]
    operation: JsonObject = {
        "operationId": "_".join([route.method, *words]) if words else "front",
        "summary": route.summary,
        "description": f"For {route.access.value}.",
        "tags": list(route.tags),
        "parameters": [_parameter(parameter) for parameter in (*route.parameters, *_conditions(route))],
        "responses": {"200": _success(route), **_not_modified(route), **_failures(route, problem_types)},
    }
    if route.access is not Access.OPEN:
        operation["security"] = [{"token": []}] if route.access is Access.ADMIN else [{"token": []}, {}]
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": _reference(route.body)}}}
    return operation


def _parameter(parameter: Parameter) -> JsonObject:
    fragment: JsonObject = {
        "name": parameter.name,
        "in": parameter.location,
        "description": parameter.description,
        "schema": parameter.schema,
    }
    if parameter.location == "path":
        fragment["required"] = True
    if parameter.example is not None:
        fragment["example"] = parameter.example
    return fragment


def _success(route: Route) -> JsonObject:
    schema = {"type": "object"} if route.response is None else _reference(route.response)
    content = {media: {"schema": schema if media == JSON else {"type": "string"}} for media in route.media}
    return {"description": "OK", "headers": _header_references("X-Request-ID", *route.headers), "content": content}


def _conditions(route: Route) -> tuple[Parameter, ...]:
    if "ETag" not in route.headers:
        return ()
    return (Parameter("If-None-Match", "304 if the content has this ETag", {"type": "string"}, location="header"),)


def _not_modified(route: Route) -> JsonObject:
    if "ETag" not in route.headers:
        return {}
    return {"304": {"description": "Not Modified", "headers": _header_references("X-Request-ID", "ETag")}}


def _failures(route: Route, problem_types: Mapping[str, ProblemType]) -> JsonObject:
    descriptions: dict[int, list[str]] = {}
    for code in (*_COMMON_PROBLEMS, *_ACCESS_PROBLEMS[route.access], *route.problems):
        status, description = problem_types[code]
        descriptions.setdefault(status, []).append(f"`{code}` {description}")
    return {str(status): _failure(status, descriptions[status], route) for status in sorted(descriptions)}


def _failure(status: int, descriptions: list[str], route: Route) -> JsonObject:
    content = {"application/problem+json": {"schema": _reference(ProblemDetails)}}
    if route.media == (HTML,):
        content[HTML] = {"schema": {"type": "string"}}
    names = ["X-Request-ID"]
    names += ["Retry-After"] if status in (429, 503) else []
    names += ["WWW-Authenticate"] if status == 401 else []
    return {
        "description": f"{HTTPStatus(status).phrase}: " + "; ".join(descriptions),
        "headers": _header_references(*names),
        "content": content,
    }


def _header_references(*names: str) -> JsonObject:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _reference(struct: type[Struct]) -> JsonObject:
    return {"$ref": f"#/components/schemas/{struct.__name__}"}
