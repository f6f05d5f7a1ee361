"""HTTP client of the workers: reads tables, totals and digests for commands."""

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
from app.polling import poll_until
from app.settings import Settings
from domain.partitioning import partition_of
from domain.purchases import Purchase, all_purchases, erased_version
from domain.totals import Totals, decode_totals

#: How long a worker may recover or lag before a command gives up, s.
RECOVERY_TIMEOUT_S = 60
#: How long a worker may be away before a command gives up, s.
AWAY_TIMEOUT_S = 5
POLL_INTERVAL_S = 0.25
REQUEST_TIMEOUT_S = 30
#: Timeout of the digest of a large partition, s.
DIGEST_TIMEOUT_S = 600
#: Maximum size of a query string (a request line has at most 8 KiB), and maximum number of users in
#: it.
MAX_QUERY_BYTES, MAX_QUERY_USERS = 7_000, 100
#: Maximum length of an error text of a worker in a message.
MAX_DETAIL_CHARS = 200

PurchasesByUser = dict[str, list[Purchase]]
#: The parameters of a request for keys and key prefixes, as (name, hexadecimal value).
Query = list[tuple[str, str]]


class TablePage(NamedTuple):
    """A part of a table that contains all events below `position` of its source topic.

    The next page begins after the key `after`; None on the last page.
    """

    position: int
    pairs: list[tuple[bytes, bytes]]
    after: bytes | None


class WorkerDigest(msgspec.Struct, frozen=True):
    """Digest of one partition of a table.

    It contains all events below `position` of its source topic.
    """

    table: str
    partition: int
    position: int | None
    keys: int
    digest: str


_decode_page = msgspec.msgpack.Decoder(TablePage).decode
_decode_digest = msgspec.json.Decoder(WorkerDigest).decode


class WorkerClient:
    """Reads from all workers: the worker at `url` forwards a request to the partition's owner."""

    def __init__(self, settings: Settings, client: aiohttp.ClientSession, url: str) -> None:
        self._settings, self._client, self._url = settings, client, url.rstrip("/")
        #: Users that were read and had been erased -> the version up to which their purchases are
        #: erased.
        self.erasure_versions: dict[str, int] = {}

    async def read_users(self, partition: int) -> AsyncIterator[tuple[bytes, list[Purchase]]]:
        """Yield users and stored purchases of a partition, sorted by the ids as bytes.

        A purchase that changes meanwhile may appear twice or not at all.
        """
        user, value = b"", None
        overflow: list[bytes] = []
        async for key, content in self._read_pairs("by_user", partition):
            owner, separator, _ = key.partition(b"\x00")
            if owner != user:
                if user:
                    yield user, self._decode_purchases(user, value, overflow)
                user, value, overflow = owner, None, []
            if separator:
                overflow.append(content)
            else:
                value = content
        if user:
            yield user, self._decode_purchases(user, value, overflow)

    async def read_purchases(self, users: Iterable[str], offsets: Mapping[int, int] | None = None) -> PurchasesByUser:
        """Read all stored purchases of these users, each user's at one moment.

        `offsets` maps partitions of `orders` to the offset below which all events must be applied.
        Raises ServerAway if they are not applied in time.
        """
        purchases: PurchasesByUser = {}
        for partition, batch in self._batches_by_partition(users):
            query = [pair for user in batch for pair in _user_query(user)]
            page = await self._read_applied_page("by_user", partition, query, (offsets or {}).get(partition, 0))
            values = {key: value for key, value in page.pairs if b"\x00" not in key}
            overflow: dict[bytes, list[bytes]] = {}
            for key, value in page.pairs:
                if b"\x00" in key:
                    overflow.setdefault(key.partition(b"\x00")[0], []).append(value)
            for user in batch:
                purchases[user.decode()] = self._decode_purchases(user, values.get(user), overflow.get(user, ()))
        return purchases

    def _decode_purchases(self, user: bytes, value: bytes | None, overflow: Iterable[bytes]) -> list[Purchase]:
        version = erased_version(value)
        if version >= 0:
            self.erasure_versions[user.decode()] = version
        return all_purchases(value, overflow)

    async def read_keys(self, table: str, user: str) -> list[bytes]:
        """Read the keys of a user in a table that is keyed by user. Raises ServerAway."""
        page = await self._read_user_page(table, user.encode())
        return [key for key, _ in page.pairs]

    async def count_shown(self, user: str) -> int:
        """Count the purchases of a user in the response of a worker, at most 100.

        Raises ServerAway.
        """
        body = await self._get(f"/v1/users/{quote(user, safe='')}/purchases?limit=100")
        return len(msgspec.json.decode(body)["purchases"])

    async def read_user(self, user_id: str) -> tuple[int, list[Purchase]]:
        """Read the stored purchases of a user, and the applied offset of `orders`.

        Raises ServerAway.
        """
        user = user_id.encode()
        page = await self._read_user_page("by_user", user)
        values = dict(page.pairs)
        value = values.pop(user, None)
        return page.position, self._decode_purchases(user, value, values.values())

    async def read_product_partials(self) -> dict[int, tuple[int, dict[str, Totals]]]:
        """Read the totals by product, of each partition of `orders` at one offset.

        Return partition -> (offset, totals of the events below it). A partition is read again until
        its offset does not change meanwhile: limit that with a timeout.
        """
        partials: dict[int, tuple[int, dict[str, Totals]]] = {}
        # A key that no product has: the page contains the position only.
        position_query = [("key", "00")]
        for partition in range(self._settings.partitions):
            while partition not in partials:
                before = await self._read_page("product_partials", partition, position_query)
                pairs = [pair async for pair in self._read_pairs("product_partials", partition)]
                after = await self._read_page("product_partials", partition, position_query)
                if before.position == after.position:
                    totals = {product.decode(): decode_totals(value) for product, value in pairs}
                    partials[partition] = (before.position, totals)
        return partials

    async def read_digest(self, table: str, partition: int) -> WorkerDigest:
        """Read the digest of a partition of a table. Raises ServerAway."""
        return _decode_digest(await self._get(f"/v1/tables/{table}/{partition}/digest", DIGEST_TIMEOUT_S))

    def _batches_by_partition(self, users: Iterable[str]) -> Iterable[tuple[int, list[bytes]]]:
        """Group users by partition, so that the query of each group has an allowed size."""
        batches: dict[int, list[bytes]] = {}
        sizes: dict[int, int] = {}
        for user in map(str.encode, users):
            partition = partition_of(user, self._settings.partitions)
            # Two parameters with the user's id in hexadecimal.
            size = 4 * len(user) + 14
            is_full = len(batches.get(partition, ())) == MAX_QUERY_USERS
            if is_full or sizes.get(partition, 0) + size > MAX_QUERY_BYTES:
                yield partition, batches.pop(partition)
                sizes[partition] = 0
            batches.setdefault(partition, []).append(user)
            sizes[partition] = sizes.get(partition, 0) + size
        yield from batches.items()

    async def _read_applied_page(self, table: str, partition: int, query: Query, offset: int) -> TablePage:
        """Read a page once all events below `offset` are applied.

        Raises ServerAway if that takes too long.
        """
        page = await poll_until(
            lambda: self._read_page(table, partition, query),
            RECOVERY_TIMEOUT_S,
            POLL_INTERVAL_S,
            is_done=lambda page: page.position >= offset,
        )
        if page.position < offset:
            raise ServerAway(
                f"partition {partition} of {table} is at offset {page.position} and not yet at {offset}: "
                "are the workers behind? `lately_consumer_lag_records` shows it"
            )
        return page

    async def _read_pairs(self, table: str, partition: int) -> AsyncIterator[tuple[bytes, bytes]]:
        after: bytes | None = b""
        while after is not None:
            page = await self._read_page(table, partition, [("after", after.hex())] if after else [])
            for pair in page.pairs:
                yield pair
            after = page.after

    async def _read_user_page(self, table: str, user: bytes) -> TablePage:
        return await self._read_page(table, partition_of(user, self._settings.partitions), _user_query(user))

    async def _read_page(self, table: str, partition: int, query: Query) -> TablePage:
        return _decode_page(await self._get(f"/v1/tables/{table}/{partition}?{urlencode(query)}"))

    async def _get(self, path: str, timeout_s: float = REQUEST_TIMEOUT_S) -> bytes:
        """Return the body of a response with status 200.

        Repeat a request that the worker cannot answer yet. Raises ServerAway, and BadSetting for a
        response that a retry does not change.
        """
        url, timeout = f"{self._url}{path}", aiohttp.ClientTimeout(total=timeout_s)
        started_at = time.monotonic()

        async def attempt() -> bytes | str:
            """Return the body, or the reason why there is none yet."""
            try:
                async with self._client.get(url, timeout=timeout) as response:
                    if response.status == 200:
                        return await response.read()
                    detail = await response.text()
            except (aiohttp.ClientError, asyncio.TimeoutError) as exc:
                reason = str(exc) or type(exc).__name__
                if time.monotonic() - started_at > AWAY_TIMEOUT_S:
                    raise self._no_answer(reason) from None
                return reason
            if response.status in (401, 403, 404):
                raise BadSetting(
                    f"{self._url} refuses to show its tables ({response.status}): "
                    "give --worker and LATELY_TOKEN_SECRET of the app that you mean"
                )
            if response.status == 421:
                raise BadSetting(
                    f"{self._url}: {msgspec.json.decode(detail)['detail']}; select another worker with --worker"
                )
            return detail

        result = await poll_until(
            attempt, RECOVERY_TIMEOUT_S, POLL_INTERVAL_S, is_done=lambda result: isinstance(result, bytes)
        )
        if isinstance(result, str):
            raise self._no_answer(result)
        return result

    def _no_answer(self, reason: str) -> ServerAway:
        return ServerAway(
            f"no answer from the worker at {self._url} ({reason[:MAX_DETAIL_CHARS]}): start it, or give --worker"
        )


def _user_query(user: bytes) -> Query:
    """Return the parameters for all keys of a user: its id, and its id with a zero byte."""
    return [("key", user.hex()), ("prefix", (user + b"\x00").hex())]


@asynccontextmanager
async def open_worker_client(settings: Settings, url: str | None) -> AsyncIterator[WorkerClient]:
    """Open a client of the worker at `url`, by default at the address that the settings name."""
    headers = {}
    if settings.auth == "token":
        token = tokens.create_token(settings.token_secret, operator=True, days=1, audience=settings.token_audience)
        headers["Authorization"] = f"Bearer {token}"
    async with aiohttp.ClientSession(headers=headers) as client:
        yield WorkerClient(settings, client, url or settings.worker_url)
