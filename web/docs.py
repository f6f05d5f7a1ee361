"""How to use all this: /openapi.json for programs, /docs for people."""

from __future__ import annotations

import json
from functools import cache

from aiohttp.web import Request, Response

from app.core import app
from web.admin import LogLevel
from web.openapi import document
from web.pages import page


@app.page("/openapi.json")
async def openapi(self, request: Request) -> Response:
    """The OpenAPI document of what this worker serves."""
    return Response(text=json.dumps(_document(), ensure_ascii=False), content_type="application/json")


@app.page("/docs")
async def docs(self, request: Request) -> Response:
    """The same as one page without scripts."""
    return page("docs.html", document=_document())


@cache
def _document() -> dict:
    served = {resource.canonical for resource in app.web.web_app.router.resources()}
    return document(served, {"LogLevel": LogLevel})
