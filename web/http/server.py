"""Faust's web server with our errors, limits and access, and without its own pages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import CoroutineType

import faust.web.drivers.aiohttp as driver
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
from faust.types import AppT
from faust.web import View

from app import metrics, otel
from app.settings import Settings
from web.http import limits, routes
from web.http.accept import shape, wanted
from web.http.access import access
from web.http.fast_path import in_one_piece, shortcut
from web.http.prebuilt import Ready
from web.http.problems import Answered, Handler, Problem, from_http, problems, stamp, stamped
from web.http.routes import Route

log = logging.getLogger(__name__)


class Web(driver.Web):
    """Replaces: Faust's /table, /router, /graph and statistics pages, which show everybody's data to anybody."""

    default_blueprints = ()
    production_blueprints = ()
    debug_blueprints = ()
    optional_blueprints = ()

    def __init__(self, app: AppT, **kwargs: object) -> None:
        super().__init__(app, **kwargs)
        self.web_app.on_response_prepare.append(stamped)
        self._runner = Runner(
            self.web_app,
            otel.traced(problems(gate(app.settings))),
            access_log=None,
            keepalive_timeout=limits.PATIENCE_S,
            lingering_time=limits.PATIENCE_S,
            max_line_size=limits.MAX_LINE_BYTES,
            max_field_size=limits.MAX_HEADER_BYTES,
            max_headers=limits.MAX_HEADERS,
        )

    @property
    def cors(self) -> bool:
        """Replaces: a look at every answer for what other sites may do with it. They may do nothing."""
        return True

    def route(self, pattern: str, handler: View, cors_options: None = None) -> None:
        """Replaces: HEAD on a view that has no GET, and sensors that are told of every request."""
        methods = handler.get_methods()
        for method in methods if "GET" in methods else methods - {"HEAD"}:
            view = handler.methods["get" if method == "HEAD" else method.lower()]
            self.web_app.router.add_route(method, pattern, _straight(view))


def _straight(view: Callable[..., Answered]) -> Handler:
    def begin(request: Request) -> Answered:
        return view(request, **request.match_info)

    # aiohttp makes a coroutine of every handler that is none.
    async def answer(request: Request) -> StreamResponse:
        answered = begin(request)
        return await answered if isinstance(answered, CoroutineType) else answered

    answer.begin = begin
    return answer


def _begin(request: Request) -> Answered:
    handler = request.match_info.handler
    return getattr(handler, "begin", handler)(request)


def gate(settings: Settings) -> Handler:
    """What every request passes on its way to a view, and every answer on its way back: access, and header Accept."""
    check = access(settings)

    def gated(request: Request) -> Answered:
        route = routes.of(request)
        check(request, route)
        if route is None or not route.media:
            return _begin(request)
        media = wanted(request, route)
        answered = _begin(request)
        if isinstance(answered, CoroutineType):
            return _shaped(answered, route, media)
        return shape(answered, route, media)

    return gated


async def _shaped(answered: Awaitable[StreamResponse | Ready], route: Route, media: str) -> StreamResponse | Ready:
    return shape(await answered, route, media)


class Runner(AppRunner):
    """Replaces: aiohttp's connections with ours, and its way from a request to a view with one of half the length."""

    def __init__(self, app: Application, answer: Handler, **kwargs: object) -> None:
        super().__init__(app, **kwargs)
        self._answer = answer

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        answer, app, resolve = self._answer, self.app, self.app.router.resolve

        async def handle(request: Request) -> StreamResponse:
            begun = request.protocol.take_begun()
            if begun is None:
                request._match_info = match = await resolve(request)  # noqa: SLF001 - as Application does
                match.add_app(app)
                match.freeze()
                if "Expect" in request.headers:
                    refused = await _expected(request)
                    if refused is not None:
                        return refused
                begun = answer(request)
            answered = await begun if isinstance(begun, CoroutineType) else begun
            return answered.response() if isinstance(answered, Ready) else answered

        return Connections(
            handle,
            shortcut(app, answer),
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **self._kwargs,
        )


async def _expected(request: Request) -> StreamResponse | None:
    """Do as the header Expect says; what cannot be done is the answer."""
    try:
        refused = await request.match_info.expect_handler(request)
    except HTTPException as exc:
        return from_http(exc, request)
    await request.writer.drain()
    return refused


class Connections(Server):
    """What makes a Connection for each client; `at_once` begins to answer a request, None where it cannot."""

    def __init__(self, handler: Handler, at_once: Callable[[Request], Answered | None], **kwargs: object) -> None:
        super().__init__(handler, **kwargs)
        self.at_once = at_once
        self._answers: list[tuple[asyncio.Transport, bytes]] = []

    def send(self, transport: asyncio.Transport, answer: bytes) -> None:
        """Send an answer once all that is to be read at this moment is read.

        To send wakes the client's process or the network, which takes the kernel longer than the answer took us; a
        client that is awake already takes the others on the way.
        """
        if not self._answers:
            self._loop.call_soon(self._send)
        self._answers.append((transport, answer))

    def _send(self) -> None:
        answers, self._answers = self._answers, []
        for transport, answer in answers:
            transport.write(answer)

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)


class Connection(RequestHandler):
    """Replaces: a task for a request that waits for nothing, errors in aiohttp's own words and with a traceback in the
    log, and patience without end.
    """

    __slots__ = ("_begun", "_given_up")

    def __init__(self, manager: Connections, **kwargs: object) -> None:
        super().__init__(manager, **kwargs)
        self._begun: tuple[Request, Answered] | None = None
        self._request_factory = self._request

    def data_received(self, data: bytes) -> None:
        """Read requests, and answer one at once that comes alone while nothing else is to do."""
        # Without its future nobody is woken.
        waiter, self._waiter = self._waiter, None
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if waiter is None or waiter.done() or not self._messages:
            return
        if len(self._messages) > 1 or not self._answered(*self._messages[0]):
            waiter.set_result(None)

    def _answered(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Whether the request is answered; if not, the task of the connection has to do it, or the rest of it."""
        if (
            payload is not EMPTY_PAYLOAD
            or message.__class__ is not RawRequestMessage
            or message.method != "GET"
            or message.version != HttpVersion11
            or message.should_close
            or message.upgrade
            or self.writing_paused
        ):
            return False
        request = self._request(message, payload, self, StreamWriter(self, self._loop), self._task_handler)
        answered = self._manager.at_once(request)
        if answered is None:
            return False
        sent = None if isinstance(answered, CoroutineType) else in_one_piece(request, answered)
        if sent is None:
            self._begun = request, answered
            return False
        self._messages.popleft()
        self._parser.message_consumed()
        self._manager.requests_count += 1
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        self._manager.send(self.transport, sent)
        return True

    def _request(self, message: RawRequestMessage, payload: StreamReader, *rest: object) -> Request:
        if self._begun is not None:
            return self._begun[0]
        return self._manager.request_factory(message, payload, *rest)

    def take_begun(self) -> Answered | None:
        """What was begun to answer the request that is handled now."""
        begun, self._begun = self._begun, None
        return None if begun is None else begun[1]

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> StreamResponse:
        """The answer to a request that could not be read, or that failed outside of all views."""
        if isinstance(exc, HttpProcessingError):
            problem = _unreadable(exc)
        else:
            log.error("a request failed", exc_info=exc)
            problem = Problem(500, "internal-error", "the request failed")
        if request.writer.output_size:
            raise ConnectionResetError("an answer that has begun cannot become a problem")
        metrics.REQUESTS.labels("unknown", "unknown", problem.status).observe(0)
        response = problem.render(request)
        stamp(request, response)
        response.force_close()
        return response

    async def finish_response(
        self, request: BaseRequest, resp: StreamResponse, start_time: float | None
    ) -> tuple[StreamResponse, bool]:
        """Send an answer; one that aiohttp gives without asking the middlewares is put into our words first."""
        if isinstance(resp, HTTPException) and resp.status >= 400:
            resp = from_http(resp, request)
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *args: object, **kwargs: object) -> None:
        """Say nothing about a body that stops being HTTP after it was answered: that is the client's affair."""
        if not isinstance(kwargs.get("exc_info"), RequestPayloadError):
            super().log_exception(*args, **kwargs)

    def pause_writing(self) -> None:
        """The client fetches its answer too slowly: wait a little, then give it up."""
        super().pause_writing()
        self._given_up: asyncio.TimerHandle = self._loop.call_later(limits.PATIENCE_S, self._abort)

    def resume_writing(self) -> None:
        self._given_up.cancel()
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.writing_paused:
            self._given_up.cancel()
        begun = self.take_begun()
        if isinstance(begun, CoroutineType):
            begun.close()
        super().connection_lost(exc)

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def _unreadable(exc: HttpProcessingError) -> Problem:
    if isinstance(exc, LineTooLong):
        if exc.args[1] == limits.MAX_LINE_BYTES:
            return Problem(414, "line-too-long", f"a request line has at most {limits.MAX_LINE_BYTES} bytes")
        return Problem(431, "headers-too-large", f"a header has at most {limits.MAX_HEADER_BYTES} bytes")
    if exc.message == "Too many headers received":
        return Problem(431, "headers-too-large", f"a request has at most {limits.MAX_HEADERS} headers")
    return Problem(400, "bad-request", "this is not a request that HTTP allows")
