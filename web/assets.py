"""What the pages load: one style sheet, one script."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aiohttp.web import Request, Response

from app.core import app
from web.http.conditional import known

_FOLDER = Path(__file__).parent / "pages"


@app.page("/assets/lately.css")
async def style(self, request: Request) -> Response:
    """How the pages look."""
    return _file(request, "lately.css", "text/css")


@app.page("/assets/live.js")
async def script(self, request: Request) -> Response:
    """Shows a new order on the home page without a reload."""
    return _file(request, "live.js", "text/javascript")


def _file(request: Request, name: str, media: str) -> Response:
    content = (_FOLDER / name).read_bytes()
    etag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    headers = {"Cache-Control": "public, max-age=60", "ETag": etag}
    if known(request, etag):
        return Response(status=304, headers=headers)
    return Response(body=content, content_type=media, charset="utf-8", headers=headers)
