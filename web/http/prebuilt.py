"""Prebuilt responses: JSON 200 with an ETag, the most common response.

Their bytes bypass the response classes of aiohttp.
"""

from __future__ import annotations

from typing import ClassVar

from aiohttp import hdrs
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.web import Response
from msgspec import Struct
from multidict import istr

#: Headers of every JSON response about a user.
PRIVATE_JSON_HEADERS = {hdrs.CACHE_CONTROL: "private, no-cache", hdrs.CONTENT_TYPE: "application/json; charset=utf-8"}
#: Headers of every response, in addition to the request id.
COMMON_HEADERS = {istr("X-Content-Type-Options"): "nosniff", hdrs.SERVER: "lately"}
ETAG = istr("ETag")  # aiohttp's constant is spelled "Etag"

_PREBUILT_HEADERS = {**PRIVATE_JSON_HEADERS, hdrs.VARY: "Accept"}
# No inserted value can contain a line break: an ETag is hexadecimal, a request id is visible ASCII.
_TEMPLATE = (
    b"HTTP/1.1 200 OK\r\n"
    + "".join(f"{name}: {value}\r\n" for name, value in {**_PREBUILT_HEADERS, **COMMON_HEADERS}.items()).encode()
    + b"ETag: %b\r\nContent-Length: %d\r\nDate: %b\r\nX-Request-ID: %b\r\n\r\n%b"
)


class PrebuiltResponse(Struct, frozen=True, gc=False):
    """A complete JSON response of a route that also offers other media types."""

    body: bytes
    etag: str

    status: ClassVar[int] = 200

    def to_response(self) -> Response:
        """Return an equal aiohttp response, without the common headers."""
        return Response(body=self.body, headers={**_PREBUILT_HEADERS, ETAG: self.etag})

    def to_bytes(self, request_id: str) -> bytes:
        """Return all bytes of the response to a GET over a persistent connection."""
        date = rfc822_formatted_time().encode()
        return _TEMPLATE % (self.etag.encode(), len(self.body), date, request_id.encode(), self.body)
