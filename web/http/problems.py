"""Errors: problem+json (RFC 9457) for programs, an HTML page for browsers."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Coroutine, Mapping
from functools import lru_cache
from http import HTTPStatus
from types import CoroutineType
from typing import NamedTuple

import msgspec
from aiohttp import hdrs
from aiohttp.web import (
    AbstractResource,
    BaseRequest,
    HTTPException,
    HTTPMethodNotAllowed,
    HTTPRequestEntityTooLarge,
    Request,
    RequestKey,
    Response,
    StreamResponse,
)
from multidict import istr
from prometheus_client import Histogram

from app import metrics
from web.http import limits
from web.http.handlers import AnyResponse, Handler, HandlerResult
from web.http.prebuilt import COMMON_HEADERS
from web.pages import page

log = logging.getLogger(__name__)

_REQUEST_ID_HEADER = istr("X-Request-ID")
_REQUEST_ID: RequestKey[str] = RequestKey("request_id", str)


class ProblemType(NamedTuple):
    """The status of a problem code, and its description for the API document."""

    status: int
    description: str


#: The codes of problems that every server of this package can report.
PROBLEM_TYPES = {
    "bad-request": ProblemType(400, "the request is not valid HTTP"),
    "invalid-user-id": ProblemType(400, "the user id breaks the rules for user ids"),
    "invalid-parameter": ProblemType(400, "`errors` names the parameter and its valid values"),
    "unknown-parameter": ProblemType(400, "`detail` lists the allowed parameters"),
    "invalid-cursor": ProblemType(400, "the cursor does not belong to this call"),
    "malformed-json": ProblemType(400, "the body is not JSON"),
    "token-needed": ProblemType(401, "with `WWW-Authenticate: Bearer`"),
    "invalid-token": ProblemType(401, "the token is invalid or expired"),
    "not-your-data": ProblemType(403, "the token belongs to another user"),
    "operators-only": ProblemType(403, "the route needs an operator's token"),
    "not-found": ProblemType(404, "no resource has this path"),
    "method-not-allowed": ProblemType(405, "with `Allow`"),
    "not-acceptable": ProblemType(406, "the route offers no type that `Accept` allows"),
    "request-timeout": ProblemType(408, "the body took too long"),
    "body-too-large": ProblemType(413, "a body has at most 64 KiB"),
    "line-too-long": ProblemType(414, "a request line has at most 16 KiB"),
    "unsupported-media-type": ProblemType(415, "the body is not `application/json`"),
    "expectation-failed": ProblemType(417, "an `Expect` other than `100-continue`"),
    "invalid-body": ProblemType(422, "`errors` has a pointer to the field"),
    "rate-limited": ProblemType(429, "more requests than `LATELY_RATE_PER_S`; with `Retry-After`"),
    "headers-too-large": ProblemType(
        431,
        "a header has at most 8 KiB, a request at most 100 headers with 32 KiB in all",
    ),
    "internal-error": ProblemType(500, "the log contains the request's id"),
}


class Problem(Exception):
    """An error response. `code` identifies the kind of the problem.

    `parameter` names the invalid parameter, `pointer` (RFC 6901) the invalid field of the body.
    `members` are added to the JSON object.
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
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.parameter, self.pointer, self.retry_after_s = parameter, pointer, retry_after_s
        self.headers, self.members = headers or {}, members or {}

    def render(self, request: BaseRequest) -> Response:
        """Return the response: HTML if a browser requested a page, else problem+json."""
        headers = {"Cache-Control": "no-store", **self.headers}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if not request.path.startswith("/v1/") and "text/html" in request.headers.get("Accept", ""):
            return page("error.html", status=self.status, headers=headers, problem=self)
        body: dict[str, object] = {
            "type": f"urn:lately:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": request_id(request),
            "code": self.code,
        }
        for name, location in (("parameter", self.parameter), ("pointer", self.pointer)):
            if location is not None:
                body["errors"] = [{name: location, "message": self.detail}]
        if self.retry_after_s is not None:
            body["retry_after_ms"] = self.retry_after_s * 1000
        body |= self.members
        return Response(
            body=msgspec.json.encode(body),
            status=self.status,
            content_type="application/problem+json",
            headers=headers,
        )


def handle_errors(handler: Handler) -> Handler:
    """Wrap `handler`: every exception becomes a problem response, and every response is timed."""

    def handle(request: Request) -> HandlerResult:
        started_at = time.perf_counter()
        assign_request_id(request)
        try:
            if len(request.raw_headers) > limits.FEW_HEADERS:
                _check_headers(request)
            if request.body_exists and (request.content_length or 0) > request.client_max_size:
                raise body_too_large(request)
            result = handler(request)
            if isinstance(result, CoroutineType):
                return wait(request, result, started_at)
        except Exception as exc:
            result = _render_exception(request, exc)
        return _observe(request, result, started_at)  # type: ignore[arg-type]  # a coroutine is a CoroutineType

    async def wait(request: Request, result: Coroutine[None, None, AnyResponse], started_at: float) -> AnyResponse:
        try:
            response = await result
        except Exception as exc:
            response = _render_exception(request, exc)
        return _observe(request, response, started_at)

    return handle


def _check_headers(request: Request) -> None:
    size = sum(len(name) + len(value) for name, value in request.raw_headers)
    if size > limits.MAX_HEADERS_BYTES:
        raise Problem(431, "headers-too-large", f"all headers together have at most {limits.MAX_HEADERS_BYTES} bytes")


def _render_exception(request: Request, exc: Exception) -> Response:
    """Return the error response; raise ConnectionResetError if the client cannot receive it.

    Raises a redirect again: it is a response and no error.
    """
    if isinstance(exc, Problem):
        return exc.render(request)
    if isinstance(exc, HTTPException):
        if exc.status < 400:
            raise exc
        return from_http_exception(exc, request)
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the client closed the connection") from None
    log.error("request %s failed", request_id(request), exc_info=exc)
    if request.writer.output_size:
        raise ConnectionResetError("part of the response is sent already") from None
    return Problem(500, "internal-error", "the request failed; search the log for its id").render(request)


def _observe(request: Request, response: AnyResponse, started_at: float) -> AnyResponse:
    # Any word can be a method: others would be further keys and time series without end.
    method = request.method if request.method in hdrs.METH_ALL else "unknown"
    histogram = _histogram(request.match_info.route.resource, method, response.status)
    histogram.observe(time.perf_counter() - started_at)
    return response


@lru_cache(maxsize=1024)
def _histogram(resource: AbstractResource | None, method: str, status: int) -> Histogram:
    return metrics.REQUESTS.labels("unknown" if resource is None else resource.canonical, method, status)


async def on_response_prepare(request: Request, response: StreamResponse) -> None:
    """Set the common headers of a response that aiohttp sends; a signal handler."""
    set_common_headers(request, response)


def set_common_headers(request: BaseRequest, response: StreamResponse) -> None:
    """Set the headers of every response: request id, nosniff and Server."""
    response.headers[_REQUEST_ID_HEADER] = request_id(request)
    response.headers.update(COMMON_HEADERS)


def from_http_exception(exc: HTTPException, request: BaseRequest) -> Response:
    """Return the problem response of an exception of aiohttp.

    OPTIONS receives 204 with the allowed methods.
    """
    if isinstance(exc, HTTPMethodNotAllowed):
        allowed = ", ".join(sorted({*exc.allowed_methods, "OPTIONS"}))
        if request.method == "OPTIONS":
            return Response(status=204, headers={"Allow": allowed})
        problem = Problem(405, "method-not-allowed", f"this route allows {allowed}", headers={"Allow": allowed})
    elif isinstance(exc, HTTPRequestEntityTooLarge):
        problem = body_too_large(request)
    elif exc.status == 404:
        problem = Problem(404, "not-found", "no resource has this path")
    elif exc.status == 417:
        problem = Problem(417, "expectation-failed", "the only supported Expect is 100-continue")
    else:
        problem = Problem(exc.status, HTTPStatus(exc.status).phrase.lower().replace(" ", "-"), exc.reason)
    return problem.render(request)


def body_too_large(request: BaseRequest) -> Problem:
    """Return Problem 413 with the limit."""
    return Problem(413, "body-too-large", f"a body has at most {request.client_max_size} bytes")


def request_id(request: BaseRequest) -> str:
    """Return the id of a request.

    It is the X-Request-ID if that has 1 to 128 visible ASCII characters, else a new id.
    """
    try:
        return request[_REQUEST_ID]
    except KeyError:
        return assign_request_id(request)


def assign_request_id(request: BaseRequest) -> str:
    """Store the id of a request in it and return it; see `request_id`."""
    header = request.headers.get(_REQUEST_ID_HEADER)
    if header is not None and 1 <= len(header) <= 128 and all("!" <= char <= "~" for char in header):
        assigned = header
    else:
        assigned = f"{random.getrandbits(128):032x}"  # identifies a request, is no secret
    request[_REQUEST_ID] = assigned
    return assigned
