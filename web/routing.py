"""Choice of the source that answers a request about one key of a table.

The sources of a response are tried in this order:

1. local: the table of this worker, if it owns the partition of the key and its tables are complete;
2. owner: the worker that owns the partition, which may be in another consumer group;
3. standby: the copy of the partition on this worker;
4. mysql: the shop's database.

Not every route has the last two. If no source has the data, the response is 503 with Retry-After,
or 421 if no process runs the agent that writes the table; never an empty list.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple, TypeVar

import aiohttp
import msgspec
from aiohttp import ClientSession, ClientTimeout
from aiohttp.web import Request, Response, StreamResponse
from yarl import URL

from app.settings import Settings
from app.tokens import create_hop_token
from chunks import ClosedPartition
from domain.partitioning import partition_of
from web.http.accept import wants_fragment
from web.http.access import ANY_HOP, CALLER, HOP_HEADER, OWNER_HOP, is_for_owner
from web.http.handlers import ViewResponse, ViewResult
from web.http.problems import Problem, request_id
from web.worker import Ownership

RETRY_AFTER_S = 1
#: Limit of the response of another worker.
MAX_BODY_BYTES = 16 * 2**20

#: Header of a response without data because the worker does not have it: the worker that forwarded
#: the request may use another source.
UNSERVED = "Lately-Unserved"

#: Headers that a forwarded request keeps, and headers that its response keeps; the response also
#: keeps Lately's own.
_REQUEST_HEADERS = ("Accept", "If-None-Match", "Last-Event-ID", "traceparent")
_RESPONSE_HEADERS = (
    "Content-Type", "Retry-After", "Cache-Control", "ETag", "Link", "WWW-Authenticate", "Content-Security-Policy",
    "Referrer-Policy", "X-Content-Type-Options",
)  # fmt: skip
_OWN_PREFIX = "lately-"

Content = TypeVar("Content", bound=msgspec.Struct)

#: Builds the response for a partition from the table here. Raises ClosedPartition, Problem.
LocalSource = Callable[[int], ViewResult]
#: The same for a response that has to wait for something.
WaitingSource = Callable[[int], Awaitable[ViewResponse]]
#: Returns the response for a partition; None, or a Problem with the reason, if this source does not
#: have the data.
AnswerSource = Callable[[int], Awaitable[ViewResponse | None]]
Forward = Callable[[Request, URL], Coroutine[None, None, ViewResponse]]


class NotServed(Problem):
    """This worker does not have the data now; another source may have it."""


def not_served(code: str) -> NotServed:
    """Return the Problem of a worker that does not have the data: recovering or owner-away."""
    detail = {
        "recovering": "the tables are being recovered, ask again soon",
        "owner-away": "the worker that owns this partition does not answer, ask again soon",
    }[code]
    return NotServed(503, code, detail, retry_after_s=RETRY_AFTER_S, headers={UNSERVED: code})


def problem_from_owner(code: str) -> NotServed:
    """Return the Problem for a code in the header Lately-Unserved of another worker.

    Two workers that disagree on the owner will soon agree: then the owner counts as away.
    """
    return not_served("recovering" if code == "recovering" else "owner-away")


def decode_content(body: bytes, type_: type[Content]) -> Content:
    """Return the content of another worker's response.

    Raises NotServed owner-away if it is not of this type: the worker is of another version.
    """
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise not_served("owner-away") from None


async def first_answer(sources: Sequence[AnswerSource], partition: int, problem: Problem) -> ViewResponse:
    """Return the response of the first source that has the data.

    Raises Problem if no source has it: the reason of the last source that gives one, else
    `problem`.
    """
    for source in sources:
        try:
            response = await source(partition)
        except Problem as reason:
            problem = reason
        else:
            if response is not None:
                return response
    raise problem


class OwnerResponse(NamedTuple):
    """The response of another worker, with the headers that the client receives."""

    status: int
    headers: dict[str, str]
    body: bytes


class Router:
    """Chooses the source of each response, and forwards requests to the owners of partitions."""

    def __init__(self, settings: Settings, ownership: Ownership, http_client: Callable[[], ClientSession]) -> None:
        self._settings = settings
        self._partitions = settings.partitions
        self._forward_ms = settings.forward_ms
        self._ownership = ownership
        self._http_client = http_client

    def respond(
        self, request: Request, table: str, key: bytes, local: LocalSource,
        forward: Forward | None = None, fallbacks: Sequence[AnswerSource] = (),
    ) -> ViewResult:  # fmt: skip
        """Respond from the first source that has the data: `local`, the owner, `fallbacks`.

        `local` must read the table before it waits for anything. Raises Problem: 421
        agent-elsewhere, 503 recovering or owner-away, 508 routing-loop.
        """
        partition = partition_of(key, self._partitions)
        try:
            owner = self.locate_owner(request, table, partition)
            if owner is None:
                return local(partition)
        except ClosedPartition:
            problem = not_served("recovering")
        except NotServed as reason:
            problem = reason
        else:
            return self._respond_remotely(request, table, owner, forward or self.forward, fallbacks, partition)
        return first_answer(fallbacks, partition, problem)

    async def respond_later(
        self, request: Request, table: str, key: bytes, local: WaitingSource,
        forward: Forward | None = None, fallbacks: Sequence[AnswerSource] = (),
    ) -> ViewResponse:  # fmt: skip
        """Respond as `respond` does, for a `local` that waits before a read of the table."""
        partition = partition_of(key, self._partitions)
        try:
            owner = self.locate_owner(request, table, partition)
            if owner is None:
                return await local(partition)
        except ClosedPartition:
            problem = not_served("recovering")
        except NotServed as reason:
            problem = reason
        else:
            return await self._respond_remotely(request, table, owner, forward or self.forward, fallbacks, partition)
        return await first_answer(fallbacks, partition, problem)

    def locate_owner(self, request: Request, table: str, partition: int) -> URL | None:
        """Return the owner of a partition of a table; None if it is this worker and it is ready.

        The owner of a table that this process does not run is in another consumer group. Raises
        NotServed: 421 agent-elsewhere, 503 recovering or owner-away; Problem 508 routing-loop.
        """
        ownership = self._ownership
        # The tables of this process do not matter for a table that it does not run.
        is_recovering = ownership.has_table(table) and not ownership.is_ready()
        if ownership.is_owned(table, partition):
            if is_recovering:
                raise not_served("recovering")
            ownership.check_frozen()
            return None
        if is_for_owner(request):
            raise not_served("recovering") if is_recovering else _routing_loop()
        # During a rebalance the former owner responds until it receives the new assignment.
        owner = ownership.find_owner(table, partition)
        if owner is not None:
            return URL(owner)
        self.require_agent(table)
        raise not_served("recovering" if is_recovering else "owner-away")

    def require_agent(self, table: str) -> None:
        """Raise NotServed 421 agent-elsewhere if no process runs the agent that writes a table."""
        if self._ownership.may_run(table):
            return
        raise NotServed(
            421,
            "agent-elsewhere",
            f"this process does not run the agent {self._ownership.find_writer(table)}: ask one that does, or add "
            f"it to LATELY_AGENTS, which here is {','.join(self._ownership.selected_agents())}",
        )

    async def forward(self, request: Request, owner: URL, wait_ms: int = 0, path: str | None = None) -> StreamResponse:
        """Respond as `owner` does to the request, or to one for `path`.

        `wait_ms` is added to the timeout. Raises Problem 503 owner-away.
        """
        return _relay(await self.fetch(request, owner, wait_ms, path))

    async def forward_to_any(self, request: Request, addresses: Iterable[str], problem: NotServed) -> StreamResponse:
        """Respond as the first of some workers that has the data, or receives it from owners and copies.

        Raises `problem` if none has it, or if another worker has forwarded the request.
        """
        for address in () if HOP_HEADER in request.headers else addresses:
            try:
                response = await self.fetch(request, URL(address), 2 * self._forward_ms, hop=ANY_HOP)
            except NotServed:
                continue
            if UNSERVED not in response.headers:
                return _relay(response)
        raise problem

    async def fetch(
        self, request: Request, owner: URL, wait_ms: int = 0, path: str | None = None, hop: str = OWNER_HOP
    ) -> OwnerResponse:
        """Return the response of `owner`, for arguments as those of `forward`; `hop` is for HOP_HEADER.

        Raises Problem 503 owner-away.
        """
        timeout = ClientTimeout(total=(self._forward_ms + wait_ms) / 1000)
        async with self.open_response(request, owner, timeout, path, hop) as response:
            return OwnerResponse(response.status, forwarded_headers(response), await _read_body(response))

    @asynccontextmanager
    async def open_response(
        self, request: Request, owner: URL, timeout: ClientTimeout, path: str | None = None, hop: str = OWNER_HOP
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send the request, or one for `path`, to `owner` and yield the response without its body.

        Raises Problem 503 owner-away, also while the body is read.
        """
        url = URL(f"{str(owner).rstrip('/')}{path or request.rel_url.raw_path_qs}", encoded=True)
        headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
        if path or wants_fragment(request):
            headers.pop("If-None-Match", None)  # the client's ETag is of another response, or of HTML
        headers |= {"X-Request-ID": request_id(request), HOP_HEADER: hop}
        caller = request.get(CALLER)
        if caller is not None:
            token = create_hop_token(self._settings.token_secret, caller, audience=self._settings.token_audience)
            headers["Authorization"] = f"Bearer {token}"
        client = self._http_client()
        sending = client.get(url, headers=headers, timeout=timeout, allow_redirects=False)
        try:
            async with await asyncio.wait_for(sending, timeout.total or self._forward_ms / 1000) as response:
                yield response
        except (aiohttp.ClientError, asyncio.TimeoutError):
            raise not_served("owner-away") from None
        except RuntimeError:
            if client.closed:  # this worker stops
                raise not_served("owner-away") from None
            raise

    def _respond_remotely(
        self, request: Request, table: str, owner: URL, forward: Forward, fallbacks: Sequence[AnswerSource],
        partition: int,
    ) -> Coroutine[None, None, ViewResponse]:  # fmt: skip
        # The owner in another consumer group may have changed some seconds ago: its 508 becomes 503.
        if not fallbacks and self._ownership.has_table(table):
            return forward(request, owner)
        sources: list[AnswerSource] = [partial(_from_owner, request, owner, forward), *fallbacks]
        return first_answer(sources, partition, not_served("owner-away"))


async def _from_owner(request: Request, owner: URL, forward: Forward, _partition: int) -> ViewResponse:
    response = await forward(request, owner)
    if isinstance(response, StreamResponse) and UNSERVED in response.headers:
        raise problem_from_owner(response.headers[UNSERVED])
    return response


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    """Return the body. Raises Problem 503 owner-away if it is larger than any response of a worker."""
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise not_served("owner-away")
    return bytes(body)


def _relay(response: OwnerResponse) -> Response:
    return Response(body=response.body, status=response.status, headers=response.headers)


def _routing_loop() -> Problem:
    detail = "the worker that was asked to answer does not own this partition either"
    return Problem(508, "routing-loop", detail, headers={UNSERVED: "routing-loop"})


def forwarded_headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    """Return the headers of another worker's response that the client receives."""
    own = [name for name in response.headers if name.lower().startswith(_OWN_PREFIX)]
    return {name: response.headers[name] for name in (*_RESPONSE_HEADERS, *own) if name in response.headers}
