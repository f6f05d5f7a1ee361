"""The tables as the workers have them, asked over HTTP by commands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from app import tokens
from app.errors import BadSetting, ServerAway
from app.settings import Settings
from domain import purchases
from domain.partitioning import partition_of
from domain.totals import Totals, decode_totals

#: How long a worker may recover, or be behind, before a command gives up.
PATIENCE_S = 60
#: How long one may be away.
AWAY_S = 5
AGAIN_AFTER_S = 0.25
#: How long a digest of a large partition may take.
DIGEST_S = 600
#: A request line has at most 8 KiB.
QUERY_BYTES, KEYS = 7_000, 100

PurchasesByUser = dict[str, list[purchases.Purchase]]


class TablePage(NamedTuple):
    """A part of a table: it holds all below `position` of its source topic; `after` is the key to go on behind."""

    position: int
    pairs: list[tuple[bytes, bytes]]
    after: bytes | None


class PartitionDigest(NamedTuple):
    """What a partition of a table held at one moment: all below `position` of its source topic."""

    table: str
    partition: int
    position: int | None
    keys: int
    digest: str


_decode = msgspec.msgpack.Decoder(TablePage).decode


class WorkerClient:
    """All workers, of which one is asked; it asks the others."""

    def __init__(self, settings: Settings, client: aiohttp.ClientSession, url: str) -> None:
        self._settings, self._client, self._url = settings, client, url.rstrip("/")
        #: Of the users that were read, those who were erased once, and up to which version they are forgotten.
        self.erasure_versions: dict[str, int] = {}

    async def read_users(self, partition: int) -> AsyncIterator[tuple[bytes, list[purchases.Purchase]]]:
        """All users of a partition in the order of their ids' bytes, each with all that is known of their purchases.

        While orders flow a purchase can be seen twice or not at all.
        """
        user, value, others = b"", None, []
        async for key, content in self._pairs("by_user", partition):
            owner, aside, _ = key.partition(b"\x00")
            if owner != user:
                if user:
                    yield user, self._registers(user, value, others)
                user, value, others = owner, None, []
            if aside:
                others.append(content)
            else:
                value = content
        if user:
            yield user, self._registers(user, value, others)

    async def read_purchases(self, users: Iterable[str], offsets: Mapping[int, int] | None = None) -> PurchasesByUser:
        """All that is known of the purchases of these users, each user's at one moment.

        That moment is not before everything below `offsets`, by partition of `orders`, is applied. Raises ServerAway.
        """
        found: PurchasesByUser = {}
        for partition, some in self._by_partition(users):
            query = [pair for user in some for pair in (("key", user.hex()), ("prefix", (user + b"\x00").hex()))]
            page = await self._applied("by_user", partition, query, (offsets or {}).get(partition, 0))
            values = {key: value for key, value in page.pairs if b"\x00" not in key}
            others: dict[bytes, list[bytes]] = {}
            for key, value in page.pairs:
                if b"\x00" in key:
                    others.setdefault(key.partition(b"\x00")[0], []).append(value)
            found |= {user.decode(): self._registers(user, values.get(user), others.get(user, ())) for user in some}
        return found

    def _registers(self, user: bytes, value: bytes | None, others: Iterable[bytes]) -> list[purchases.Purchase]:
        version = purchases.erased_version(value)
        if version >= 0:
            self.erasure_versions[user.decode()] = version
        return purchases.all_purchases(value, others)

    async def read_keys(self, table: str, user: str) -> list[bytes]:
        """The keys of a user in a table that is keyed by user. Raises ServerAway."""
        key = user.encode()
        query = [("key", key.hex()), ("prefix", (key + b"\x00").hex())]
        page = await self._ask(table, partition_of(key, self._settings.partitions), query)
        return [found for found, _ in page.pairs]

    async def count_shown(self, user: str) -> int:
        """How many purchases of a user a worker shows, at most 100. Raises ServerAway."""
        answer = await self._get(f"/v1/users/{quote(user, safe='')}/purchases?limit=100")
        return len(msgspec.json.decode(answer)["purchases"])

    async def read_user(self, user_id: str) -> tuple[int, list[purchases.Purchase]]:
        """All that is known of a user's purchases, and the offset of `orders` below which all is applied to them.

        Raises ServerAway.
        """
        user = user_id.encode()
        query = [("key", user.hex()), ("prefix", (user + b"\x00").hex())]
        page = await self._ask("by_user", partition_of(user, self._settings.partitions), query)
        values = dict(page.pairs)
        value = values.pop(user, None)
        return page.position, self._registers(user, value, values.values())

    async def read_product_partials(self) -> dict[int, tuple[int, dict[str, Totals]]]:
        """Of each partition of `orders` a position, and of each product the totals of exactly what is below it.

        While orders flow it is read again until nothing was committed meanwhile: put an end to that with a timeout.
        """
        found = {}
        for partition in range(self._settings.partitions):
            while partition not in found:
                began = await self._ask("product_partials", partition, [("key", "00")])
                pairs = [pair async for pair in self._pairs("product_partials", partition)]
                ended = await self._ask("product_partials", partition, [("key", "00")])
                if began.position == ended.position:
                    totals = {product.decode(): decode_totals(value) for product, value in pairs}
                    found[partition] = (began.position, totals)
        return found

    def _by_partition(self, users: Iterable[str]) -> Iterable[tuple[int, list[bytes]]]:
        waiting: dict[int, list[bytes]] = {}
        sizes: dict[int, int] = {}
        for user in map(str.encode, users):
            partition = partition_of(user, self._settings.partitions)
            size = 4 * len(user) + 14
            if sizes.get(partition, 0) + size > QUERY_BYTES or len(waiting.get(partition, ())) == KEYS:
                yield partition, waiting.pop(partition)
                sizes[partition] = 0
            waiting.setdefault(partition, []).append(user)
            sizes[partition] = sizes.get(partition, 0) + size
        yield from waiting.items()

    async def _applied(self, table: str, partition: int, query: list[tuple[str, str]], offset: int) -> TablePage:
        until = time.monotonic() + PATIENCE_S
        while (page := await self._ask(table, partition, query)).position < offset:
            if time.monotonic() > until:
                raise ServerAway(
                    f"partition {partition} of {table} is at offset {page.position} and not yet at {offset}: "
                    "are the workers behind? `lately_consumer_lag_records` shows it"
                )
            await asyncio.sleep(AGAIN_AFTER_S)
        return page

    async def _pairs(self, table: str, partition: int) -> AsyncIterator[tuple[bytes, bytes]]:
        after: bytes | None = b""
        while after is not None:
            page = await self._ask(table, partition, [("after", after.hex())] if after else [])
            for pair in page.pairs:
                yield pair
            after = page.after

    async def read_digest(self, table: str, partition: int) -> PartitionDigest:
        """The digest of a partition of a table. Raises ServerAway."""
        said = msgspec.json.decode(await self._get(f"/v1/tables/{table}/{partition}/digest", DIGEST_S))
        return PartitionDigest(**said)

    async def _ask(self, table: str, partition: int, query: list[tuple[str, str]]) -> TablePage:
        return _decode(await self._get(f"/v1/tables/{table}/{partition}?{urlencode(query)}"))

    async def _get(self, path: str, within_s: float = 30) -> bytes:
        url, timeout = f"{self._url}{path}", aiohttp.ClientTimeout(total=within_s)
        since = time.monotonic()
        while True:
            try:
                async with self._client.get(url, timeout=timeout) as answer:
                    if answer.status == 200:
                        return await answer.read()
                    said = await answer.text()
            except (aiohttp.ClientError, asyncio.TimeoutError) as exc:
                answer, said = None, str(exc) or type(exc).__name__
            if answer is not None and answer.status in (401, 403, 404):
                raise BadSetting(
                    f"{self._url} refuses to show its tables ({answer.status}): "
                    "give --worker and LATELY_TOKEN_SECRET of the app that you mean"
                )
            if answer is not None and answer.status == 421:
                raise BadSetting(f"{self._url}: {msgspec.json.decode(said)['detail']}; --worker says which to ask")
            if time.monotonic() - since > (AWAY_S if answer is None else PATIENCE_S):
                raise ServerAway(f"no answer from the worker at {self._url} ({said[:200]}): start it, or give --worker")
            await asyncio.sleep(AGAIN_AFTER_S)


@asynccontextmanager
async def open_worker_client(settings: Settings, url: str | None) -> AsyncIterator[WorkerClient]:
    """The workers behind the one at `url`, by default the one that has these settings."""
    headers = {}
    if settings.auth == "token":
        headers["Authorization"] = f"Bearer {tokens.issue(settings.token_secret, operator=True, days=1)}"
    async with aiohttp.ClientSession(headers=headers) as client:
        yield WorkerClient(settings, client, url or f"http://{settings.web_host}:{settings.web_port}")
