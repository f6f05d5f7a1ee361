"""The tables as they are, for commands that compare or count them: GET /v1/tables/{table}/{partition}, …/digest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import msgspec
from aiohttp.web import Request, Response

from app.core import app, settings
from chunks import ClosedPartition, StoreSnapshot, Table, position_key
from domain.digests import PartitionDigest
from tables import baskets, by_product, by_user, product_partials, similar
from web import schemas
from web.http import parameters
from web.http.problems import Problem
from web.http.routes import JSON, MSGPACK, Access, Parameter, Route
from web.problem_types import QUERY, ROUTED
from web.routing import demand_kept, forwarded, owner_of, ready, recovering

#: A page ends with the key that reaches one of these.
PAGE_KEYS, PAGE_BYTES = 2_000, 2**19
#: Between so many keys of a digest other requests are answered; and how long the worker that owns it may take.
KEYS_AT_ONCE, DIGEST_MS = 500, 600_000

#: Those that some process keeps; an agent of your own may have more.
LATELYS = (by_user.by_user, product_partials.product_partials, by_product.by_product, baskets.baskets, similar.similar)

Pairs = Iterable[tuple[bytes, bytes]]

PARTITION = (
    Parameter("table", "The table's name", {"type": "string", "maxLength": 64}, "path", "by_user"),
    Parameter("partition", "The partition's number", {"type": "string", "maxLength": 9}, "path", "0"),
)
_HEX: dict[str, object] = {"type": "string", "pattern": "^([0-9a-f]{2})*$"}

_encode = msgspec.msgpack.Encoder().encode


@Route(
    "/v1/tables/{table}/{partition}",
    "The committed keys and values of a partition of a table, page by page, in msgpack; see docs/protocol.md",
    Access.OPERATOR,
    (MSGPACK,),
    parameters=(
        *PARTITION,
        Parameter("after", "Start after this key, in hex", _HEX),
        Parameter("key", "Only these keys, in hex; give it once per key", _HEX),
        Parameter("prefix", "Also the keys with these prefixes, in hex; give it once per prefix", _HEX),
    ),
    problems=("not-found", *QUERY, *ROUTED),
    tags=("operations",),
)
async def get_table_content(context: object, request: Request) -> Response:
    """What is committed in a partition of a table; the worker that owns it answers.

    An array: the offset of the source topic up to which it holds everything, the pairs of key and value in the order
    of the keys, and the key to go on after, nil at the end.
    """
    table = request.match_info["table"]
    parameters.require_known(request, "after", "key", "prefix")
    number = parameters.read_partition(request, 4, settings.partitions)
    keys, prefixes = parameters.read_hex_values(request, "key"), parameters.read_hex_values(request, "prefix")
    after = (parameters.read_hex_values(request, "after") or [None])[-1]
    wanted = _known(table)
    owner = owner_of(request, wanted, number)
    if owner is not None:
        return await forwarded(request, owner)
    try:
        position = wanted.position(number) or 0  # first: what is committed meanwhile is there, but not promised
        moment = wanted.snapshot(number)
    except ClosedPartition:
        raise recovering() from None
    if keys or prefixes:
        pairs, following = list(_chosen(moment, keys, prefixes)), None
    else:
        pairs, following = _page(moment.scan(after=after))
    body = _encode((position, pairs, following))
    return Response(body=body, content_type=MSGPACK)


@Route(
    "/v1/tables/{table}/{partition}/digest",
    "Number of keys and a digest of a partition of a table; equal for equal content",
    Access.OPERATOR,
    (JSON,),
    schemas.TableDigest,
    PARTITION,
    ("not-found", *QUERY, *ROUTED),
    tags=("operations",),
)
async def get_table_digest(context: object, request: Request) -> Response:
    """How many keys a partition of a table holds, and a digest of them and their values, all at one moment."""
    table = request.match_info["table"]
    parameters.require_known(request)
    number = parameters.read_partition(request, 4, settings.partitions)
    wanted = _known(table)
    owner = owner_of(request, wanted, number)
    if owner is not None:
        return await forwarded(request, owner, DIGEST_MS)
    try:
        moment = wanted.snapshot(number)
    except ClosedPartition:
        raise recovering() from None
    position, digest = moment.get(position_key(wanted.source_topic)), PartitionDigest(table)
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


def _chosen(moment: StoreSnapshot, keys: list[bytes], prefixes: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
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
