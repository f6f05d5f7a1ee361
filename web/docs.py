"""How to use all this: /openapi.json for programs, /docs for people."""

from __future__ import annotations

import json
from functools import cache

from aiohttp.web import Request, Response

from app.core import app
from web.admin import LogLevel
from web.http.openapi import document
from web.pages import html, render


@app.page("/openapi.json")
async def openapi(self, request: Request) -> Response:
    """The OpenAPI document of what this worker serves."""
    return Response(body=_as_json(), content_type="application/json", charset="utf-8")


@app.page("/docs")
async def docs(self, request: Request) -> Response:
    """The same as one page without scripts."""
    return html(_as_page())


# Both are open to everybody, and making one takes as long as a hundred other answers.
@cache
def _as_json() -> bytes:
    return json.dumps(_document(), ensure_ascii=False).encode()


@cache
def _as_page() -> str:
    return render("docs.html", document=_document())


@cache
def _document() -> dict:
    served = {resource.canonical for resource in app.web.web_app.router.resources()}
    return document(served, {"LogLevel": LogLevel})
