"""The tables as they are, for commands that compare or count them: GET /v1/tables/{table}/{partition}, …/digest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import msgspec
from aiohttp.web import Request, Response

from app.core import app, settings
from chunks import ClosedPartition
from chunks.store import Moment, position_key
from chunks.table import Table
from domain.digests import Digest
from tables import baskets, by_product, by_user, product_partials, similar
from web.http import parameters
from web.http.problems import Problem
from web.http.routes import MSGPACK
from web.routing import demand_kept, forwarded, owner_of, ready, recovering

#: A page ends with the key that reaches one of these.
PAGE_KEYS, PAGE_BYTES = 2_000, 2**19
#: Between so many keys of a digest other requests are answered; and how long the worker that owns it may take.
KEYS_AT_ONCE, DIGEST_MS = 500, 600_000

#: Those that some process keeps; an agent of your own may have more.
LATELYS = (by_user.by_user, product_partials.product_partials, by_product.by_product, baskets.baskets, similar.similar)

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
    wanted = _known(table)
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


@app.page("/v1/tables/{table:[^/]*}/{partition:[^/]*}/digest")
async def digested(self, request: Request, table: str, partition: str) -> Response:
    """How many keys a partition of a table holds, and a digest of them and their values, all at one moment."""
    parameters.only(request)
    number = parameters.partition(request, 4, settings.partitions)
    wanted = _known(table)
    owner = owner_of(request, wanted, number)
    if owner is not None:
        return await forwarded(request, owner, DIGEST_MS)
    try:
        moment = wanted.moment(number)
    except ClosedPartition:
        raise recovering() from None
    position, digest = moment.get(position_key(wanted.fed_by)), Digest(table)
    for key, value in moment.scan():
        digest.add(key, value)
        if not digest.keys % KEYS_AT_ONCE:
            await asyncio.sleep(0)
            if not ready():
                raise recovering()  # the partition may be closed at any time
    body = {
        "table": table, "partition": number, "position": None if position is None else int(position),
        "keys": digest.keys, "digest": digest.hexdigest(),
    }  # fmt: skip
    return Response(body=msgspec.json.encode(body), content_type="application/json", charset="utf-8")


def _known(table: str) -> Table:
    for one in LATELYS:
        if one.name == table:
            demand_kept(one)
    if table not in app.tables:
        raise Problem(404, "not-found", f"there is no such table; there are {', '.join(sorted(app.tables))}")
    return app.tables[table]


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
