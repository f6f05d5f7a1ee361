"""The files that the pages load: one style sheet, one script."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aiohttp.web import Request, Response

from web.context import WebContext
from web.http.conditional import is_not_modified
from web.http.routes import Access, Route

_FOLDER = Path(__file__).parent / "pages"


@Route(
    "/assets/lately.css", "The style sheet of the pages", Access.OPEN, ("text/css",), headers=("ETag",), tags=("pages",)
)
def get_style_sheet(context: WebContext, request: Request) -> Response:
    """Return the style sheet of the pages."""
    return _serve_file(request, "lately.css", "text/css")


@Route(
    "/assets/live.js",
    "The script that keeps a page up to date",
    Access.OPEN,
    ("text/javascript",),
    headers=("ETag",),
    tags=("pages",),
)
def get_script(context: WebContext, request: Request) -> Response:
    """Return the script that keeps a page up to date."""
    return _serve_file(request, "live.js", "text/javascript")


def _serve_file(request: Request, name: str, media: str) -> Response:
    content = (_FOLDER / name).read_bytes()
    etag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    headers = {"Cache-Control": "public, max-age=60", "ETag": etag}
    if is_not_modified(request, etag):
        return Response(status=304, headers=headers)
    return Response(body=content, content_type=media, charset="utf-8", headers=headers)
