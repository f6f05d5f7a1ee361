"""The OpenAPI 3.1 document, made of the routes, the answers and the bodies."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus

import msgspec

from app.version import __version__
from web.http import schemas
from web.http.routes import HTML, JSON, PROBLEMS, ROUTES, Access, Parameter, Route

#: What any route can answer.
_EVERYWHERE = (
    "bad-request",
    "not-acceptable",
    "body-too-large",
    "line-too-long",
    "headers-too-large",
    "expectation-failed",
    "internal-error",
)
_GUARDED = ("token-needed", "invalid-token", "rate-limited")
_REFUSED = {
    Access.OPEN: (),
    Access.OWN: (*_GUARDED, "not-your-data"),
    Access.OPERATOR: (*_GUARDED, "operators-only"),
    Access.ADMIN: (*_GUARDED, "operators-only"),
}
_HEADERS = {
    "X-Request-ID": ("The request's id: yours, or one that was made", {"type": "string"}),
    "Retry-After": ("Seconds to wait before asking again", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": ("Bearer", {"type": "string"}),
    "ETag": ("Stands for the content: weak where it is JSON", {"type": "string"}),
    "Link": ('The next page, `rel="next"`', {"type": "string"}),
}
#: JSON has a tag, HTML made of it none; the last page has no next one.
_SOMETIMES = ("ETag", "Link")
_DESCRIPTION = """What each user bought lately.

`HEAD` is `GET` without the body, `OPTIONS` answers 204 with `Allow`, any other method 405 with `Allow`. An unknown path
is 404 `not-found`. JSON of `/v1` is a fragment of HTML for who asks for `text/html`. Fields may be added within v1."""


def document(served: Collection[str], bodies: dict[str, type[msgspec.Struct]]) -> dict:
    """The document of the routes whose paths are in `served`; `bodies` are the structs of the bodies they take."""
    _, taken = msgspec.json.schema_components(bodies.values(), ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lately", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in ("data", "pages", "operations", "documents")],
        "paths": {path: {route.method: _operation(path, route)} for path, route in ROUTES.items() if path in served},
        "components": {
            "schemas": {**schemas.schemas(), **taken},
            "headers": {
                name: {"description": help, "schema": schema, "required": name not in _SOMETIMES}
                for name, (help, schema) in _HEADERS.items()
            },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "`lately token` makes one. Needed with LATELY_AUTH=token.",
                }
            },
        },
    }


def _operation(path: str, route: Route) -> dict:
    words = [word.strip("{}").replace("-", "_").replace(".", "_") for word in path.split("/") if word]
    operation = {
        "operationId": "_".join([route.method, *words]) if words else "front",
        "summary": route.summary,
        "description": f"For {route.access.value}.",
        "tags": list(route.tags),
        "parameters": [_parameter(one) for one in (*route.parameters, *_conditions(route))],
        "responses": {"200": _success(route), **_unchanged(route), **_failures(route)},
    }
    if route.access is not Access.OPEN:
        operation["security"] = [{"token": []}] if route.access is Access.ADMIN else [{"token": []}, {}]
    if route.body:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": _ref(route.body)}}}
    return operation


def _parameter(one: Parameter) -> dict:
    shown = {"name": one.name, "in": one.where, "description": one.help, "schema": one.schema}
    if one.where == "path":
        shown["required"] = True
    if one.example is not None:
        shown["example"] = one.example
    return shown


def _success(route: Route) -> dict:
    answer = {"type": "object"} if route.answer is dict else _ref(route.answer.__name__)
    content = {media: {"schema": answer if media == JSON else {"type": "string"}} for media in route.media}
    return {"description": "OK", "headers": _headers("X-Request-ID", *route.headers), "content": content}


def _conditions(route: Route) -> tuple[Parameter, ...]:
    if "ETag" not in route.headers:
        return ()
    return (Parameter("If-None-Match", "304 to who has this ETag", {"type": "string"}, where="header"),)


def _unchanged(route: Route) -> dict:
    if "ETag" not in route.headers:
        return {}
    return {"304": {"description": "Not Modified", "headers": _headers("X-Request-ID", "ETag")}}


def _failures(route: Route) -> dict:
    codes: dict[int, list[str]] = {}
    for code in (*_EVERYWHERE, *_REFUSED[route.access], *route.problems):
        codes.setdefault(PROBLEMS[code][0], []).append(code)
    return {str(status): _failure(status, codes[status], route) for status in sorted(codes)}


def _failure(status: int, codes: list[str], route: Route) -> dict:
    content = {"application/problem+json": {"schema": _ref("ProblemDetails")}}
    if route.media == (HTML,):
        content[HTML] = {"schema": {"type": "string"}}
    names = ["X-Request-ID"]
    names += ["Retry-After"] if status in (429, 503) else []
    names += ["WWW-Authenticate"] if status == 401 else []
    return {
        "description": f"{HTTPStatus(status).phrase}: " + "; ".join(f"`{code}` {PROBLEMS[code][1]}" for code in codes),
        "headers": _headers(*names),
        "content": content,
    }


def _headers(*names: str) -> dict:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _ref(name: str) -> dict:
    return {"$ref": f"#/components/schemas/{name}"}
