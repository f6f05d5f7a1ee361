"""The products that have buyers in common with other products, read from the owners of these.

A list of products needs the neighbours of up to ten products. Their partitions may have several
owners, so a worker requests them from all owners at once (GET /v1/common-buyers, see web.peers).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from heapq import nsmallest
from http import HTTPStatus
from urllib.parse import quote

from aiohttp.web import Request
from yarl import URL

from app.settings import Settings
from chunks import ClosedPartition
from domain.partitioning import partition_of
from tables.similar import SimilarReader
from web.http.limits import MAX_LINE_BYTES
from web.routing import NotServed, Router, decode_content, not_served
from web.schemas import MAX_NEIGHBOURS, CommonBuyers, CommonBuyersOfProducts, Role
from web.worker import Ownership

#: Keys of one read. It takes some milliseconds; between two reads the event loop serves other
#: requests.
READ_KEYS = 500
#: The maximum of products in one request.
MAX_PRODUCTS = 10
#: The maximum of characters of names in one query.
MAX_QUERY = MAX_LINE_BYTES - 1_000

PATH = "/v1/common-buyers"

#: Product -> its neighbours, or the reason why no worker could be asked for them.
NeighbourResults = dict[str, CommonBuyers | NotServed]


class CommonBuyersReader:
    """Reads the neighbours of products here and from other workers."""

    def __init__(self, settings: Settings, ownership: Ownership, router: Router, similar: SimilarReader) -> None:
        self._partitions, self._forward_s = settings.partitions, settings.forward_ms / 1000
        self._ownership, self._router, self._similar = ownership, router, similar

    async def read(self, request: Request, product_names: Iterable[str]) -> NeighbourResults:
        """Return the neighbours of products, or the reason why no worker serves a product now.

        1. Read the tables of this worker, and request the other products from their owners. 2. Read
        the remaining products from complete copies on this worker, then from all others with a copy.
        """
        # 1.
        names = list(dict.fromkeys(product_names))
        owners = _group(names, self._find_owner)
        requests = (self._request(request, address, group) for address, group in owners.items())
        results = _merge(await asyncio.gather(self._read_owned(names), *requests))
        # 2.
        copies = await self._read_copies(_missing(names, results))
        standbys = _group(_missing(names, copies | results), self._find_standbys)
        requests = (self._request(request, address, group) for address, group in standbys.items())
        others = _merge(map(_served, await asyncio.gather(*requests)))
        away = {name: not_served("owner-away") for name in names}
        return away | results | copies | others

    async def read_here(self, product_names: list[str]) -> NeighbourResults:
        """Return the neighbours of products from the tables and complete copies of this worker."""
        results = await self._read_owned(product_names)
        return results | await self._read_copies(_missing(product_names, results))

    def _partition(self, name: str) -> int:
        return partition_of(name.encode(), self._partitions)

    def _is_owned(self, name: str) -> bool:
        return self._ownership.is_owned("similar", self._partition(name))

    def _find_owner(self, name: str) -> list[str]:
        owner = None if self._is_owned(name) else self._ownership.find_owner("similar", self._partition(name))
        return [] if owner is None else [owner]

    def _find_standbys(self, name: str) -> list[str]:
        return self._ownership.find_standbys("similar", self._partition(name))

    async def _read_owned(self, names: list[str]) -> NeighbourResults:
        results: NeighbourResults = {}
        for name in names:
            if self._is_owned(name):
                results[name] = not_served("recovering")
                if self._ownership.is_ready():
                    self._ownership.check_frozen()
                    with suppress(ClosedPartition):
                        results[name] = await self._read(name, "active", self._is_owned)
        return results

    async def _read_copies(self, names: list[str]) -> NeighbourResults:
        """Return the neighbours from complete copies here; all copies that lag are waited for at once."""
        return _merge(await asyncio.gather(*map(self._read_copy, names)))

    async def _read_copy(self, name: str) -> NeighbourResults:
        if await self._ownership.is_caught_up("similar", self._partition(name), self._forward_s):
            with suppress(ClosedPartition):
                return {name: await self._read(name, "standby", lambda _name: True)}
        return {}

    async def _read(self, name: str, role: Role, may_read: Callable[[str], bool]) -> CommonBuyers:
        """Return the neighbours of a product with the most common buyers. Raises ClosedPartition."""
        ranking: list[tuple[str, int]] = []
        after: str | None = None
        partition = self._partition(name)
        while True:
            if not may_read(name):
                raise ClosedPartition(f"partition {partition} of similar is not owned here any more")
            pairs = self._similar.neighbours(name, partition, after, READ_KEYS)
            ranking += pairs
            is_last = len(pairs) < READ_KEYS
            if len(ranking) > (MAX_NEIGHBOURS if is_last else 2 * MAX_NEIGHBOURS):
                ranking = nsmallest(MAX_NEIGHBOURS, ranking, key=lambda pair: (-pair[1], pair[0]))
            if is_last:
                return CommonBuyers(name, dict(ranking), role)
            after = pairs[-1][0]
            await asyncio.sleep(0)

    async def _request(self, request: Request, address: str, names: list[str]) -> NeighbourResults:
        """Request neighbours from another worker, in several requests if the path would be too long."""
        parts: list[dict[str, str]] = []
        for name in names:
            pair = f"product_name={quote(name, safe='')}"
            if not parts or sum(map(len, parts[-1].values())) + len(pair) > MAX_QUERY:
                parts.append({})
            parts[-1][name] = pair
        return _merge(await asyncio.gather(*(self._request_part(request, URL(address), part) for part in parts)))

    async def _request_part(self, request: Request, address: URL, pairs: dict[str, str]) -> NeighbourResults:
        try:
            response = await self._router.fetch(request, address, path=f"{PATH}?{'&'.join(pairs.values())}")
            if response.status != HTTPStatus.OK:
                raise not_served("owner-away")  # for example a worker of an earlier version
            content = decode_content(response.body, CommonBuyersOfProducts)
        except NotServed as problem:
            return dict.fromkeys(pairs, problem)
        results = {product.product_name: product for product in content.products}
        reasons = {name: not_served("recovering" if name in content.recovering else "owner-away") for name in pairs}
        return {name: results.get(name) or reason for name, reason in reasons.items()}


def _group(names: Iterable[str], find_addresses: Callable[[str], list[str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        for address in find_addresses(name):
            groups.setdefault(address, []).append(name)
    return groups


def _merge(parts: Iterable[NeighbourResults]) -> NeighbourResults:
    return {name: product for part in parts for name, product in part.items()}


def _served(results: NeighbourResults) -> NeighbourResults:
    return {name: product for name, product in results.items() if isinstance(product, CommonBuyers)}


def _missing(names: Iterable[str], results: NeighbourResults) -> list[str]:
    return [name for name in names if not isinstance(results.get(name), CommonBuyers)]
