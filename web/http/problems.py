"""One shape for every error: problem+json (RFC 9457) for programs, a small page for people."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import lru_cache
from http import HTTPStatus
from types import CoroutineType

import msgspec
from aiohttp.web import (
    AbstractResource,
    BaseRequest,
    HTTPException,
    HTTPMethodNotAllowed,
    HTTPRequestEntityTooLarge,
    Request,
    Response,
    StreamResponse,
)
from multidict import istr
from prometheus_client import Histogram

from app import metrics
from web.http.prebuilt import ALWAYS, Ready
from web.pages import page

log = logging.getLogger(__name__)

_REQUEST_ID = istr("X-Request-ID")

#: An answer, or a coroutine where it has to wait for something.
Answered = StreamResponse | Ready | Coroutine[None, None, StreamResponse | Ready]
Handler = Callable[[Request], Answered]


class Problem(Exception):
    """An answer that is an error: `code` is its slug.

    `parameter` names the parameter at fault, `pointer` (RFC 6901) the place in the body; `more` is added to the answer
    as it is.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        parameter: str | None = None,
        pointer: str | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
        more: dict[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.parameter, self.pointer, self.retry_after_s = parameter, pointer, retry_after_s
        self.headers, self.more = headers or {}, more or {}

    def render(self, request: BaseRequest) -> Response:
        """The answer, as a page where the request came from a browser that looks at pages."""
        headers = {"Cache-Control": "no-store", **self.headers}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if not request.path.startswith("/v1/") and "text/html" in request.headers.get("Accept", ""):
            return page("error.html", status=self.status, headers=headers, problem=self)
        body = {
            "type": f"urn:lately:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": request_id(request),
            "code": self.code,
        }
        for place in ("parameter", "pointer"):
            if getattr(self, place) is not None:
                body["errors"] = [{place: getattr(self, place), "message": self.detail}]
        if self.retry_after_s is not None:
            body["retry_after_ms"] = self.retry_after_s * 1000
        body |= self.more
        return Response(
            body=msgspec.json.encode(body),
            status=self.status,
            content_type="application/problem+json",
            headers=headers,
        )


def problems(gate: Handler) -> Handler:
    """Turn every error of what is behind the gate into a Problem, and time every answer."""

    def answer(request: Request) -> Answered:
        began = time.perf_counter()
        name_request(request)
        try:
            if request.body_exists and (request.content_length or 0) > request.client_max_size:
                raise too_large(request)
            answered = gate(request)
            if isinstance(answered, CoroutineType):
                return later(request, answered, began)
        except Exception as exc:
            answered = _failed(request, exc)
        return _timed(request, answered, began)

    async def later(
        request: Request, answered: Awaitable[StreamResponse | Ready], began: float
    ) -> StreamResponse | Ready:
        try:
            response = await answered
        except Exception as exc:
            response = _failed(request, exc)
        return _timed(request, response, began)

    return answer


def _failed(request: Request, exc: Exception) -> Response:
    """The answer where there is none but an error. Raises what is no error, and what has nobody to be told to."""
    if isinstance(exc, Problem):
        return exc.render(request)
    if isinstance(exc, HTTPException):
        if exc.status < 400:
            raise exc
        return from_http(exc, request)
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the client has gone") from None
    log.error("request %s failed", request_id(request), exc_info=exc)
    if request.writer.output_size:
        raise ConnectionResetError("a stream that has begun cannot become a problem") from None
    return Problem(500, "internal-error", "the request failed; the log names it by its id").render(request)


def _timed(request: Request, response: StreamResponse | Ready, began: float) -> StreamResponse | Ready:
    timer = _timer(request.match_info.route.resource, request.method, response.status)
    timer.observe(time.perf_counter() - began)
    return response


@lru_cache(maxsize=1024)
def _timer(resource: AbstractResource | None, method: str, status: int) -> Histogram:
    return metrics.REQUESTS.labels("unknown" if resource is None else resource.canonical, method, status)


async def stamped(request: Request, response: StreamResponse) -> None:
    """Stamp an answer that is about to be sent, also one that is sent piece by piece."""
    stamp(request, response)


def stamp(request: BaseRequest, response: StreamResponse) -> None:
    """Put on an answer what all have: the request's id, and that its type is not to be guessed."""
    response.headers[_REQUEST_ID] = request_id(request)
    response.headers.update(ALWAYS)


def from_http(exc: HTTPException, request: BaseRequest) -> Response:
    """What aiohttp itself has to say, in our shape; OPTIONS is answered with the methods that there are."""
    if isinstance(exc, HTTPMethodNotAllowed):
        allowed = ", ".join(sorted({*exc.allowed_methods, "OPTIONS"}))
        if request.method == "OPTIONS":
            return Response(status=204, headers={"Allow": allowed})
        problem = Problem(405, "method-not-allowed", f"this route answers {allowed}", headers={"Allow": allowed})
    elif isinstance(exc, HTTPRequestEntityTooLarge):
        problem = too_large(request)
    elif exc.status == 404:
        problem = Problem(404, "not-found", "there is nothing at this path")
    elif exc.status == 417:
        problem = Problem(417, "expectation-failed", "the only Expect that is met is 100-continue")
    else:
        problem = Problem(exc.status, HTTPStatus(exc.status).phrase.lower().replace(" ", "-"), exc.reason)
    return problem.render(request)


def too_large(request: BaseRequest) -> Problem:
    """The Problem of a body that nobody wants to read."""
    return Problem(413, "body-too-large", f"a body has at most {request.client_max_size} bytes")


def request_id(request: BaseRequest) -> str:
    """The id of a request: its X-Request-ID if that is 1 to 128 visible characters of ASCII, else a new one."""
    try:
        return request["request_id"]
    except KeyError:
        return name_request(request)


def name_request(request: BaseRequest) -> str:
    """Give a request its id."""
    given = request.headers.get(_REQUEST_ID)
    fits = given is not None and 1 <= len(given) <= 128 and all("!" <= char <= "~" for char in given)
    # To tell requests apart; it is no secret.
    request["request_id"] = name = given if fits else f"{random.getrandbits(128):032x}"
    return name
