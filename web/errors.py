"""One shape for every error: problem+json (RFC 9457) for programs, a small page for people."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec
from aiohttp.web import HTTPException, HTTPMethodNotAllowed, Request, Response, StreamResponse, middleware

from app import metrics
from web.pages import page

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[StreamResponse]]


class Problem(Exception):
    """An answer that is an error: `code` is its slug, `errors` names the parameters at fault.

    `more` is added to the answer as it is.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        parameter: str | None = None,
        retry_after_s: int | None = None,
        more: dict[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.parameter, self.retry_after_s, self.more = parameter, retry_after_s, more or {}

    def render(self, request: Request) -> Response:
        """The answer, as a page where the request came from a browser that looks at pages."""
        headers = {"Cache-Control": "no-store"}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if not request.path.startswith("/v1/") and "text/html" in request.headers.get("Accept", ""):
            return page("error.html", status=self.status, headers=headers, problem=self)
        body = {
            "type": f"urn:lately:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": request["request_id"],
            "code": self.code,
        }
        if self.parameter is not None:
            body["errors"] = [{"parameter": self.parameter, "message": self.detail}]
        if self.retry_after_s is not None:
            body["retry_after_ms"] = self.retry_after_s * 1000
        body |= self.more
        return Response(
            body=msgspec.json.encode(body),
            status=self.status,
            content_type="application/problem+json",
            headers=headers,
        )


@middleware
async def problems(request: Request, handler: Handler) -> StreamResponse:
    """Give every request an id, turn every error into a Problem, and count every answer."""
    request["request_id"] = _request_id(request.headers.get("X-Request-ID", ""))
    try:
        response = await handler(request)
    except Problem as problem:
        response = problem.render(request)
    except HTTPException as exc:
        if exc.status < 400:
            raise
        response = _from_http(exc, request)
    except Exception:
        log.exception("request %s failed", request["request_id"])
        response = Problem(500, "internal-error", "the request failed; the log names it by its id").render(request)
    response.headers["X-Request-ID"] = request["request_id"]
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "unknown"
    metrics.REQUESTS.labels(route, request.method, response.status).inc()
    return response


def _from_http(exc: HTTPException, request: Request) -> Response:
    if isinstance(exc, HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(exc.allowed_methods))
        response = Problem(405, "method-not-allowed", f"this route answers {allowed}").render(request)
        response.headers["Allow"] = allowed
        return response
    if exc.status == 404:
        return Problem(404, "not-found", "there is nothing at this path").render(request)
    code = HTTPStatus(exc.status).phrase.lower().replace(" ", "-")
    return Problem(exc.status, code, exc.text or exc.reason).render(request)


def _request_id(given: str) -> str:
    if 1 <= len(given) <= 128 and all("!" <= char <= "~" for char in given):
        return given
    return str(uuid.uuid4())
