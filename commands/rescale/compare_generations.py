"""Compares the tables of two generations, read from their changelogs.

All users are compared once while orders arrive, which finds the users who may differ. Only these are compared again
during the cutover, when nothing is published.
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
from commands.tables.dump import TemporaryStores
from domain import purchases
from domain.differences import PurchaseDifference, find_differences
from domain.partitioning import partition_of
from domain.purchases import Purchase
from domain.totals import Totals, decode_totals


class _TrackedCopy(Store):
    """A copy of a table partition that records the changed users, if `touched` is set."""

    touched: set[bytes] | None = None

    def apply(self, records: Iterable[tuple[bytes, bytes | None]], offset: int, markers: int = 0) -> None:
        records = list(records)
        if self.touched is not None:
            self.touched |= {key.partition(b"\x00")[0] for key, _ in records if not key.startswith(RESERVED_PREFIX)}
        super().apply(records, offset, markers)

    def wipe(self) -> None:
        """Delete everything: the changelog begins again, so all users are changed."""
        if self.touched is not None:
            self.touched |= {key.partition(b"\x00")[0] for key, _ in self.scan()}
        super().wipe()


class _GenerationTables:
    """The tables of one generation at the last copy."""

    def __init__(self, settings: Settings, logs: ChangelogReader, stores: TemporaryStores) -> None:
        self._settings, self._logs, self._temporary_stores = settings, logs, stores
        self._stores: dict[tuple[str, int], _TrackedCopy] = {}

    async def catch_up(self) -> set[bytes]:
        """Copy the current state, and return the users who changed since the last copy."""
        touched: set[bytes] = set()
        for table in ("by_user", "product_partials") if self._settings.by_product else ("by_user",):
            for partition in range(self._settings.partitions):
                store = self._stores.get((table, partition))
                if store is None:
                    name = f"{self._settings.group}-{table}"
                    store = self._temporary_stores.create(name, partition, _TrackedCopy)
                    self._stores[table, partition] = store
                else:
                    store.open()
                    store.touched = touched if table == "by_user" else None
                with closing(store):
                    await self._logs.copy(table, partition, store)
        return touched

    @contextmanager
    def open_stores(self) -> Iterator[_GenerationTables]:
        """Open the stores for reading."""
        with ExitStack() as stack:
            for store in self._stores.values():
                stack.enter_context(closing(store.open()))
            yield self

    def users(self) -> Iterator[tuple[bytes, list[Purchase]]]:
        """Iterate over all users in the order of their ids' bytes, with all their purchases, removed ones too."""
        scans = [store.scan() for (table, _), store in self._stores.items() if table == "by_user"]
        for user, pairs in groupby(heapq.merge(*scans), lambda pair: pair[0].partition(b"\x00")[0]):
            yield user, [purchase for key, value in pairs for purchase in purchases.entry_purchases(key, value)]

    def purchases_of(self, user: bytes) -> list[Purchase]:
        """All purchases of a user, removed ones too."""
        store = self._stores["by_user", partition_of(user, self._settings.partitions)]
        return purchases.all_purchases(store.get(user), [value for _, value in store.scan(user + b"\x00")])

    def totals(self) -> dict[str, Totals]:
        """Product -> its totals, for products with purchases."""
        sums: dict[str, Totals] = {}
        for (table, _), store in self._stores.items():
            for product, value in store.scan() if table == "product_partials" else ():
                name = product.decode()
                sums[name] = sums.get(name, Totals()) + decode_totals(value)
        return {name: totals for name, totals in sums.items() if totals.purchases}


class GenerationComparison:
    """The comparison of an old generation with a new one."""

    def __init__(
        self, old: Settings, old_logs: ChangelogReader, new: Settings, new_logs: ChangelogReader,
        stores: TemporaryStores,
    ) -> None:  # fmt: skip
        self._old, self._new = _GenerationTables(old, old_logs, stores), _GenerationTables(new, new_logs, stores)
        self._suspects: set[bytes] = set()
        #: Number of users.
        self.users = 0

    async def compare_all(self) -> None:
        """Compare the current state; a user who differs may be in the middle of a change."""
        for side in (self._old, self._new):
            await side.catch_up()
        with self._old.open_stores() as old, self._new.open_stores() as new:
            async for user, old_purchases, new_purchases in merge_by_user(old.users(), _yield_regularly(new.users())):
                self.users += 1
                if _differences(user, old_purchases, new_purchases):
                    self._suspects.add(user.encode())

    async def find_differences(self) -> tuple[list[PurchaseDifference], list[str]]:
        """The purchases and products that differ, after both sides have applied the same events."""
        for side in (self._old, self._new):
            self._suspects |= await side.catch_up()
        with self._old.open_stores() as old, self._new.open_stores() as new:
            differences: list[PurchaseDifference] = []
            for user in sorted(self._suspects):
                differences += _differences(user.decode(), old.purchases_of(user), new.purchases_of(user))
            old_totals, new_totals = old.totals(), new.totals()
        products = old_totals.keys() | new_totals.keys()
        return differences, sorted(name for name in products if old_totals.get(name) != new_totals.get(name))


def _differences(user: str, expected: Iterable[Purchase], actual: Iterable[Purchase]) -> list[PurchaseDifference]:
    return find_differences(user, [purchase for purchase in expected if purchase.live], actual, None)


async def _yield_regularly(
    users: Iterable[tuple[bytes, list[Purchase]]],
) -> AsyncIterator[tuple[bytes, list[Purchase]]]:
    """Give the event loop a turn after every 1,000 users."""
    for number, user in enumerate(users):
        if not number % 1_000:
            await asyncio.sleep(0)
        yield user
