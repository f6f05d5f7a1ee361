"""The answer that is given most: JSON with an ETag, sent without a look at what else an answer can be."""

from __future__ import annotations

from typing import NamedTuple

from aiohttp import hdrs
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.web import Response
from multidict import istr

#: Of all answers about a user.
HEADERS = {hdrs.CACHE_CONTROL: "private, no-cache", hdrs.CONTENT_TYPE: "application/json; charset=utf-8"}
#: Of all answers whatsoever, beside the id of the request.
ALWAYS = {istr("X-Content-Type-Options"): "nosniff", hdrs.SERVER: "lately"}
ETAG = istr("ETag")  # aiohttp writes it otherwise

_SAID = {**HEADERS, hdrs.VARY: "Accept"}
# None of what is filled in holds a line break: an ETag is hex, and a request's id is visible ASCII.
_WHOLE = (
    b"HTTP/1.1 200 OK\r\n"
    + "".join(f"{name}: {said}\r\n" for name, said in {**_SAID, **ALWAYS}.items()).encode()
    + b"ETag: %b\r\nContent-Length: %d\r\nDate: %b\r\nX-Request-ID: %b\r\n\r\n%b"
)


class Ready(NamedTuple):
    """A whole answer of a route that has other types too."""

    body: bytes
    etag: str

    status = 200

    def response(self) -> Response:
        """The same for aiohttp to send, which is to be stamped like any other."""
        return Response(body=self.body, headers={**_SAID, ETAG: self.etag})

    def in_one_piece(self, request_id: str) -> bytes:
        """All bytes of the answer to a GET over a connection that stays open."""
        date = rfc822_formatted_time().encode()
        return _WHOLE % (self.etag.encode(), len(self.body), date, request_id.encode(), self.body)
