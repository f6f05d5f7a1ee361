"""The API document: /openapi.json for programs, /docs for people."""

from __future__ import annotations

from functools import lru_cache

import msgspec
from aiohttp.web import Application, Request, Response

from app.version import __version__
from web.context import WebContext
from web.http.dispatch import mounted_routes
from web.http.openapi import JsonObject, build_document
from web.http.routes import HTML, JSON, Access, Route
from web.pages import html, render
from web.problem_types import PROBLEM_TYPES

_DESCRIPTION = """The latest purchases of each user.

`HEAD` is `GET` without the body. `OPTIONS` responds 204 with `Allow`, any other method 405 with `Allow`. An unknown
path responds 404 `not-found`. JSON of `/v1` becomes an HTML fragment if `Accept` prefers `text/html`. Fields may be
added within v1."""


@Route("/openapi.json", "This document", Access.OPEN, (JSON,), tags=("documents",))
def get_openapi(context: WebContext, request: Request) -> Response:
    """Return the OpenAPI document of the routes that this worker serves."""
    return Response(body=_render_json(request.app), content_type="application/json", charset="utf-8")


@Route("/docs", "This document as a page", Access.OPEN, (HTML,), tags=("documents",))
def get_docs_page(context: WebContext, request: Request) -> Response:
    """Return the OpenAPI document as one page without scripts."""
    return html(_render_page(request.app))


# Both routes are open to everybody, and rendering costs as much as a hundred other responses.
@lru_cache(maxsize=1)
def _render_json(application: Application) -> bytes:
    return msgspec.json.encode(_document(application))


@lru_cache(maxsize=1)
def _render_page(application: Application) -> str:
    return render("docs.html", document=_document(application))


@lru_cache(maxsize=1)
def _document(application: Application) -> JsonObject:
    return build_document(
        {"title": "Lately", "version": __version__, "description": _DESCRIPTION},
        ("data", "pages", "operations", "documents"),
        mounted_routes(application),
        PROBLEM_TYPES,
    )
