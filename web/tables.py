"""The tables as they are, for commands that compare, copy or count them: GET /v1/tables/{table}/{partition}."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from aiohttp.web import Request, Response

from app.core import app, settings
from chunks import ClosedPartition
from chunks.store import Moment
from web import parameters
from web.errors import Problem
from web.routes import MSGPACK
from web.routing import forwarded, owner_of, recovering

#: A page ends with the key that reaches one of these.
PAGE_KEYS, PAGE_BYTES = 2_000, 2**19

Pairs = Iterable[tuple[bytes, bytes]]

_encode = msgspec.msgpack.Encoder().encode


@app.page("/v1/tables/{table:[^/]*}/{partition:[^/]*}")
async def committed(self, request: Request, table: str, partition: str) -> Response:
    """What is committed in a partition of a table; the worker that owns it answers.

    An array: the offset of the source topic up to which it holds everything, the pairs of key and value in the order
    of the keys, and the key to go on after, nil at the end.
    """
    parameters.only(request, "after", "key", "prefix")
    number = parameters.partition(request, 4, settings.partitions)
    keys, prefixes = parameters.hexes(request, "key"), parameters.hexes(request, "prefix")
    after = (parameters.hexes(request, "after") or [None])[-1]
    wanted = app.tables.get(table)
    if wanted is None:
        raise Problem(404, "not-found", f"there is no such table; there are {', '.join(sorted(app.tables))}")
    owner = owner_of(request, wanted, number)
    if owner is not None:
        return await forwarded(request, owner)
    try:
        position = wanted.position(number) or 0  # first: what is committed meanwhile is there, but not promised
        moment = wanted.moment(number)
    except ClosedPartition:
        raise recovering() from None
    if keys or prefixes:
        pairs, following = list(_chosen(moment, keys, prefixes)), None
    else:
        pairs, following = _page(moment.scan(after=after))
    body = _encode((position, pairs, following))
    return Response(body=body, content_type=MSGPACK)


def _chosen(moment: Moment, keys: list[bytes], prefixes: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for key in keys:
        value = moment.get(key)
        if value is not None:
            yield key, value
    for prefix in prefixes:
        yield from moment.scan(prefix)


def _page(pairs: Iterator[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    page, size = [], 0
    for key, value in pairs:
        page.append((key, value))
        size += len(key) + len(value)
        if len(page) == PAGE_KEYS or size >= PAGE_BYTES:
            return page, key
    return page, None
