"""Whether the tables of two generations of the topics say the same, read from their changelogs.

Everything is compared once while orders flow, which finds the users who differ or change. Only these are looked at
again at the switch, when nothing is published for a moment.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import groupby

from app.settings import Settings
from chunks import RESERVED_PREFIX, Store
from commands.changelogs import ChangelogReader
from commands.repair import merge_by_user
from commands.tables.dump import Stores
from domain import purchases
from domain.differences import PurchaseDifference, find_differences
from domain.partitioning import partition_of
from domain.purchases import Purchase
from domain.totals import Totals, decode_totals


class _Copied(Store):
    """A copy that notes which users are touched, where it has a set for them."""

    touched: set[bytes] | None = None

    def apply(self, records: Iterable[tuple[bytes, bytes | None]], offset: int) -> None:
        records = list(records)
        if self.touched is not None:
            self.touched |= {key.partition(b"\x00")[0] for key, _ in records if not key.startswith(RESERVED_PREFIX)}
        super().apply(records, offset)

    def wipe(self) -> None:
        """Forget all: the changelog begins anew, so whoever was there is touched."""
        if self.touched is not None:
            self.touched |= {key.partition(b"\x00")[0] for key, _ in self.scan()}
        super().wipe()


class _Side:
    """The tables of one generation, as of the last time that they were copied."""

    def __init__(self, settings: Settings, logs: ChangelogReader, stores: Stores) -> None:
        self._settings, self._logs, self._make = settings, logs, stores.make
        self._stores: dict[tuple[str, int], _Copied] = {}

    async def catch_up(self) -> set[bytes]:
        """Copy what there is as of now; the users who were touched since the last time."""
        touched: set[bytes] = set()
        for table in ("by_user", "product_partials") if self._settings.by_product else ("by_user",):
            for partition in range(self._settings.partitions):
                store = self._stores.get((table, partition))
                if store is None:
                    store = self._make(f"{self._settings.group}-{table}", partition, _Copied)
                    self._stores[table, partition] = store
                else:
                    store.open()
                    store.touched = touched if table == "by_user" else None
                with closing(store):
                    await self._logs.copy(table, partition, store)
        return touched

    @contextmanager
    def opened(self) -> Iterator[_Side]:
        """Its stores, open to be read."""
        with ExitStack() as stack:
            for store in self._stores.values():
                stack.enter_context(closing(store.open()))
            yield self

    def users(self) -> Iterator[tuple[bytes, list[Purchase]]]:
        """All users in the order of their ids' bytes, each with all that is known of their purchases."""
        scans = [store.scan() for (table, _), store in self._stores.items() if table == "by_user"]
        for user, pairs in groupby(heapq.merge(*scans), lambda pair: pair[0].partition(b"\x00")[0]):
            yield user, [one for key, value in pairs for one in purchases.entry_purchases(key, value)]

    def registers(self, user: bytes) -> list[Purchase]:
        """All that is known of one user's purchases."""
        store = self._stores["by_user", partition_of(user, self._settings.partitions)]
        return purchases.all_purchases(store.get(user), [value for _, value in store.scan(user + b"\x00")])

    def totals(self) -> dict[str, Totals]:
        """Product -> how often it was bought and for how much; none that nobody has."""
        sums: dict[str, Totals] = {}
        for (table, _), store in self._stores.items():
            for product, value in store.scan() if table == "product_partials" else ():
                name = product.decode()
                sums[name] = sums.get(name, Totals()) + decode_totals(value)
        return {name: totals for name, totals in sums.items() if totals.purchases}


class Audit:
    """The comparison of an old generation with a new one."""

    def __init__(
        self, old: Settings, old_logs: ChangelogReader, new: Settings, new_logs: ChangelogReader, stores: Stores
    ) -> None:
        self._old, self._new = _Side(old, old_logs, stores), _Side(new, new_logs, stores)
        self._suspects: set[bytes] = set()
        #: How many users there are.
        self.users = 0

    async def compare_all(self) -> None:
        """Compare what there is as of now; who differs may be in the middle of a change."""
        for side in (self._old, self._new):
            await side.catch_up()
        with self._old.opened() as old, self._new.opened() as new:
            async for user, wanted, known in merge_by_user(old.users(), _each(new.users())):
                self.users += 1
                if _differences(user, wanted, known):
                    self._suspects.add(user.encode())

    async def decide(self) -> tuple[list[PurchaseDifference], list[str]]:
        """The purchases and the products that differ, once both have applied the same."""
        for side in (self._old, self._new):
            self._suspects |= await side.catch_up()
        with self._old.opened() as old, self._new.opened() as new:
            found: list[PurchaseDifference] = []
            for user in sorted(self._suspects):
                found += _differences(user.decode(), old.registers(user), new.registers(user))
            was, now = old.totals(), new.totals()
        return found, sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))


def _differences(user: str, wanted: Iterable[Purchase], known: Iterable[Purchase]) -> list[PurchaseDifference]:
    return find_differences(user, [one for one in wanted if one.live], known, None)


async def _each(users: Iterable[tuple[bytes, list[Purchase]]]) -> AsyncIterator[tuple[bytes, list[Purchase]]]:
    for number, one in enumerate(users):
        if not number % 1_000:
            await asyncio.sleep(0)
        yield one
