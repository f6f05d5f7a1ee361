"""The content of the tables, for commands: GET /v1/tables/{table}/{partition}, and its digest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import msgspec
from aiohttp.web import Request, Response

from app.topics import TABLES
from chunks import ClosedPartition, StoreSnapshot, position_key
from domain.digests import PartitionDigest
from web.context import WebContext
from web.http import parameters
from web.http.handlers import ViewResponse
from web.http.problems import Problem
from web.http.routes import JSON, MSGPACK, Access, Parameter, Route
from web.problem_types import QUERY, ROUTED
from web.routing import not_served
from web.schemas import TableDigest

#: A page ends with the key that reaches one of these limits.
PAGE_KEYS, PAGE_BYTES = 2_000, 2**19
#: After this many keys of a digest the event loop serves other requests; and the extra time of the
#: owner.
DIGEST_BATCH_KEYS, DIGEST_EXTRA_MS = 500, 600_000

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
async def get_table_content(context: WebContext, request: Request) -> ViewResponse:
    """Return committed pairs of a partition of a table, from the worker that owns it.

    The msgpack array holds the offset of the source topic below which all records are included, the
    pairs in the order of their keys, and the last key of the page, nil on the last page.
    """
    parameters.require_known(request, "after", "key", "prefix")
    partition = parameters.read_partition(request, 4, context.settings.partitions)
    keys, prefixes = parameters.read_hex_values(request, "key"), parameters.read_hex_values(request, "prefix")
    start_values = parameters.read_hex_values(request, "after")
    name = _read_table_name(context, request)
    owner = context.router.locate_owner(request, name, partition)
    if owner is not None:
        return await context.router.forward(request, owner)
    table = context.tables[name]
    try:
        # The position is read first: the snapshot may also contain the records of later offsets.
        position = table.position(partition) or 0
        snapshot = table.snapshot(partition)
    except ClosedPartition:
        raise not_served("recovering") from None
    last_key: bytes | None = None
    if keys or prefixes:
        pairs = list(_select(snapshot, keys, prefixes))
    else:
        pairs, last_key = _take_page(snapshot.scan(after=start_values[-1] if start_values else None))
    return Response(body=_encode((position, pairs, last_key)), content_type=MSGPACK)


@Route(
    "/v1/tables/{table}/{partition}/digest",
    "Number of keys and a digest of a partition of a table; equal for equal content",
    Access.OPERATOR,
    (JSON,),
    TableDigest,
    PARTITION,
    ("not-found", *QUERY, *ROUTED),
    tags=("operations",),
)
async def get_table_digest(context: WebContext, request: Request) -> ViewResponse:
    """Return the number of keys and the digest of a partition, from the worker that owns it."""
    parameters.require_known(request)
    partition = parameters.read_partition(request, 4, context.settings.partitions)
    name = _read_table_name(context, request)
    owner = context.router.locate_owner(request, name, partition)
    if owner is not None:
        return await context.router.forward(request, owner, DIGEST_EXTRA_MS)
    table = context.tables[name]
    try:
        snapshot = table.snapshot(partition)
    except ClosedPartition:
        raise not_served("recovering") from None
    position, digest = snapshot.get(position_key(table.source_topic)), PartitionDigest(table.name)
    for key, value in snapshot.scan():
        digest.add(key, value)
        if not digest.keys % DIGEST_BATCH_KEYS:
            await asyncio.sleep(0)
            if not context.ownership.is_ready():
                raise not_served("recovering")  # the partition may be closed at any time
    offset = None if position is None else int(position)
    return TableDigest(table.name, partition, offset, digest.keys, digest.hexdigest())


def _read_table_name(context: WebContext, request: Request) -> str:
    """Return the table in the path, of any process. Raises Problem 404 not-found."""
    name = request.match_info["table"]
    if name in context.tables or context.ownership.find_writer(name) is not None:
        return name
    names = sorted({*context.tables, *TABLES})
    raise Problem(404, "not-found", f"there is no such table; there are {', '.join(names)}")


def _select(snapshot: StoreSnapshot, keys: Iterable[bytes], prefixes: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for key in keys:
        value = snapshot.get(key)
        if value is not None:
            yield key, value
    for prefix in prefixes:
        yield from snapshot.scan(prefix)


def _take_page(pairs: Iterator[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """Return the first pairs, and the key after which the next page begins; None on the last page."""
    page: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in pairs:
        page.append((key, value))
        size += len(key) + len(value)
        if len(page) == PAGE_KEYS or size >= PAGE_BYTES:
            return page, key
    return page, None
