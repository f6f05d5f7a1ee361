"""The HTTP server: aiohttp with our errors, limits and access control, as Faust's web driver."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import faust.web.drivers.aiohttp as driver
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage, StreamWriter
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web import (
    Application,
    AppRunner,
    BaseRequest,
    HTTPException,
    Request,
    RequestHandler,
    RequestPayloadError,
    Server,
    StreamResponse,
)
from faust.web import View

from app import metrics, otel
from app.settings import Settings
from web.http import limits
from web.http.dispatch import ENDPOINTS, Endpoint, add_endpoint, create_dispatcher
from web.http.fast_path import FastPath, create_fast_path, to_bytes
from web.http.handlers import Handler, HandlerResult
from web.http.prebuilt import PrebuiltResponse
from web.http.problems import Problem, from_http_exception, handle_errors, on_response_prepare, set_common_headers
from web.http.routes import UNLISTED

if TYPE_CHECKING:
    from app.core import Lately

log = logging.getLogger(__name__)


def prepare(application: Application) -> None:
    """Prepare an aiohttp application for `dispatch.mount` and `create_runner`."""
    application[ENDPOINTS] = {}
    application.on_response_prepare.append(on_response_prepare)


def create_runner(application: Application, settings: Settings) -> Runner:
    """Return the runner that serves a prepared application."""
    return Runner(application, otel.traced(handle_errors(create_dispatcher(application, settings))))


class Web(driver.Web):
    """Faust's web server without its own pages: /table, /router and /graph expose all data."""

    default_blueprints = ()
    production_blueprints = ()
    debug_blueprints = ()
    optional_blueprints = ()

    def __init__(self, app: Lately, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        prepare(self.web_app)
        self._runner = create_runner(self.web_app, app.settings)

    @property
    def cors(self) -> bool:  # type: ignore[override]  # Faust only checks that it is true
        """Replaces the creation of a CORS configuration: other sites get no access."""
        return True

    def route(self, pattern: str, handler: Callable[..., Any], cors_options: object = None) -> None:
        """Serve a Faust view (`@app.page`) to operators; it has no declared route."""
        if not isinstance(handler, View):
            raise TypeError(f"{handler} is not a Faust view")
        methods = handler.get_methods()
        for method in methods if "GET" in methods else methods - {"HEAD"}:
            function = handler.methods["get" if method == "HEAD" else method.lower()]
            add_endpoint(self.web_app, method, pattern, Endpoint(UNLISTED, _from_faust(function)))


def _from_faust(function: Callable[..., Any]) -> Handler:
    def handle(request: Request) -> HandlerResult:
        result: HandlerResult = function(request, **request.match_info)
        return result

    return handle


class Runner(AppRunner):
    """Runs an application with our connections and a shorter path from a request to its view."""

    def __init__(self, application: Application, handler: Handler) -> None:
        super().__init__(
            application,
            access_log=None,
            keepalive_timeout=limits.TIMEOUT_S,
            lingering_time=limits.TIMEOUT_S,
            max_line_size=limits.MAX_LINE_BYTES,
            max_field_size=limits.MAX_HEADER_BYTES,
            max_headers=limits.MAX_HEADERS,
        )
        self._handler = handler

    async def _make_server(self) -> Server:
        server = await super()._make_server()
        handler, application, resolve = self._handler, self.app, self.app.router.resolve

        async def handle(request: Request) -> StreamResponse:
            connection: Connection = request.protocol  # type: ignore[assignment]  # Connections creates no other
            started = connection.take_started()
            if started is None:
                request._match_info = match = await resolve(request)  # noqa: SLF001 - as Application does
                match.add_app(application)
                match.freeze()
                if "Expect" in request.headers:
                    response = await _handle_expect(request)
                    if response is not None:
                        return response
                started = handler(request)
            result = await started if isinstance(started, CoroutineType) else started
            return result.to_response() if type(result) is PrebuiltResponse else result  # type: ignore[return-value]  # a coroutine is a CoroutineType

        return Connections(handle, create_fast_path(application, handler), server, self._kwargs)


async def _handle_expect(request: Request) -> StreamResponse | None:
    """Fulfil the header Expect; return the error response if that is impossible."""
    try:
        response = await request.match_info.expect_handler(request)
    except HTTPException as exc:
        return from_http_exception(exc, request)
    await request.writer.drain()
    return response


class Connections(Server):
    """Creates a Connection for each client, and batches the responses of all connections."""

    def __init__(
        self,
        handler: Callable[[Request], Any],
        fast_path: FastPath,
        server: Server,
        connection_options: dict[str, Any],
    ) -> None:
        super().__init__(
            handler,  # type: ignore[arg-type]  # the request factory creates a Request
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            **connection_options,
        )
        self.fast_path = fast_path
        self._pending: list[tuple[asyncio.Transport, bytes]] = []

    def send(self, transport: asyncio.Transport, response: bytes) -> None:
        """Send a response after all requests that are readable now have been read.

        A write wakes the client's process or the network, which costs the kernel more time than the
        response cost us. A client that is awake already receives the later responses at lower cost.
        """
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append((transport, response))

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        for transport, response in pending:
            transport.write(response)

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)


class Connection(RequestHandler):
    """A client's connection, with the fast path, problem responses and timeouts."""

    __slots__ = ("_connections", "_started", "_write_timeout")

    def __init__(self, connections: Connections, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(connections, loop=loop, **options)
        self._connections = connections
        self._started: tuple[Request, HandlerResult] | None = None
        self._request_factory = self._get_request

    def data_received(self, data: bytes) -> None:
        """Parse requests; respond at once to a single request on an idle connection."""
        # Without its future, aiohttp's parser callback does not wake the connection's task.
        waiter, self._waiter = self._waiter, None
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if waiter is None or waiter.done() or not self._messages:
            return
        if len(self._messages) > 1 or not self._try_fast_path(*self._messages[0]):
            waiter.set_result(None)

    def _try_fast_path(self, message: object, payload: StreamReader) -> bool:
        """Return True if the response is sent.

        If not, the connection's task handles the request, or finishes it.
        """
        if (
            payload is not EMPTY_PAYLOAD
            or type(message) is not RawRequestMessage
            or message.method != "GET"
            or message.version != HttpVersion11
            or message.should_close
            or message.upgrade
            or self.writing_paused
        ):
            return False
        connections = self._connections
        writer = StreamWriter(self, self._loop)
        request: Request = connections.request_factory(message, payload, self, writer, self._task_handler)  # type: ignore[assignment, arg-type]  # as aiohttp creates it
        result = connections.fast_path(request)
        if result is None:
            return False
        sendable = None if isinstance(result, CoroutineType) else to_bytes(request, result)  # type: ignore[arg-type]  # a coroutine is a CoroutineType
        if sendable is None:
            self._started = request, result
            return False
        self._messages.popleft()
        self._parser.message_consumed()  # type: ignore[union-attr]  # it has just parsed the message
        connections.requests_count += 1
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        connections.send(self.transport, sendable)  # type: ignore[arg-type]  # it has just received data
        return True

    def _get_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> BaseRequest:
        if self._started is not None:
            return self._started[0]
        return self._connections.request_factory(message, payload, protocol, writer, task)

    def take_started(self) -> HandlerResult | None:
        """Remove and return the started result of the current request; None if there is none."""
        started, self._started = self._started, None
        return None if started is None else started[1]

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> StreamResponse:
        """Return the problem response to invalid HTTP or to a failure outside of views."""
        if isinstance(exc, HttpProcessingError):
            problem = _parse_problem(exc)
        else:
            log.error("a request failed", exc_info=exc)
            problem = Problem(500, "internal-error", "the request failed")
        if request.writer.output_size:
            raise ConnectionResetError("part of the response is sent already")
        metrics.REQUESTS.labels("unknown", "unknown", problem.status).observe(0)
        response = problem.render(request)
        set_common_headers(request, response)
        response.force_close()
        return response

    async def finish_response(
        self, request: BaseRequest, resp: StreamResponse, start_time: float | None
    ) -> tuple[StreamResponse, bool]:
        """Send a response; an error response of aiohttp itself becomes a problem first."""
        if isinstance(resp, HTTPException) and resp.status >= 400:
            resp = from_http_exception(resp, request)
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Log an exception, except for an invalid body that follows a handled request."""
        if not isinstance(kwargs.get("exc_info"), RequestPayloadError):
            super().log_exception(*args, **kwargs)

    def pause_writing(self) -> None:
        """Abort the connection if the client does not read its response within the timeout."""
        super().pause_writing()
        self._write_timeout = self._loop.call_later(limits.TIMEOUT_S, self._abort)

    def resume_writing(self) -> None:
        """Cancel the timeout of `pause_writing`."""
        self._write_timeout.cancel()
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release the timeout and a started request of the closed connection."""
        if self.writing_paused:
            self._write_timeout.cancel()
        started = self.take_started()
        if isinstance(started, CoroutineType):
            started.close()
        super().connection_lost(exc)

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def _parse_problem(exc: HttpProcessingError) -> Problem:
    if isinstance(exc, LineTooLong):
        if exc.args[1] == limits.MAX_LINE_BYTES:
            return Problem(414, "line-too-long", f"a request line has at most {limits.MAX_LINE_BYTES} bytes")
        return Problem(431, "headers-too-large", f"a header has at most {limits.MAX_HEADER_BYTES} bytes")
    if exc.message == "Too many headers received":
        return Problem(431, "headers-too-large", f"a request has at most {limits.MAX_HEADERS} headers")
    return Problem(400, "bad-request", "the request is not valid HTTP")
