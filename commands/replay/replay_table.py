"""A second table by_user on local disk, built from selected events of `orders`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

from app.kafka.order_log import EventSelection, OrderLog
from app.settings import Settings
from chunks import FetchedRecord, position_key
from commands.scratch_store import open_scratch_store
from domain import purchases
from domain.events import Event, UserErased, read_events
from domain.purchases import Purchase

_POSITION_NAME = "orders"


class ReplayTable:
    """One partition of the copy; an interrupted replay of the same selection is continued.

    Raises FolderInUse if another replay uses it.
    """

    def __init__(self, settings: Settings, selection: EventSelection, partition: int) -> None:
        self._folder = Path(f"{settings.folder}-replay") / _folder_name(settings, selection)
        self._selection, self._partition = selection, partition
        self._max_entries = settings.recent_limit + settings.recent_spare
        self._trim_to = settings.recent_limit + settings.recent_spare // 2
        self._store = open_scratch_store(self._folder / f"{partition}.db", "replay")
        #: Number of events applied by this process.
        self.events = 0

    async def apply_events(
        self, log: OrderLog, first: int, progress: Callable[[int, int], None] = lambda offset, end: None
    ) -> int:
        """Apply the events from offset `first`, or from the stored position, to the present end.

        Return the end.
        """
        end = await log.end_offset(self._partition)
        position = self._store.position(_POSITION_NAME)
        if position is not None and not first <= position <= end:
            self._store.wipe()
            position = None
        async for fetched in log.read_ranges(self._partition, first if position is None else position, end):
            await asyncio.to_thread(self._apply, fetched.records, fetched.next)
            progress(fetched.next, end)
        return end

    def _apply(self, records: list[FetchedRecord], position: int) -> None:
        events = list(self._select_events(records))
        users = list({user for _, user, _ in events})
        values = dict(zip(users, self._store.get_many(users), strict=True)) if users else {}
        changes: dict[bytes, bytes | None] = {}

        def read_overflow(key: bytes) -> bytes | None:
            return changes[key] if key in changes else self._store.get(key)

        for offset, user, event in events:
            if isinstance(event, UserErased):
                overflow = self._scan_overflow(user + b"\x00", changes)
                value = purchases.erase(user, values[user], event.data.version, overflow, changes.__setitem__, [])
            else:
                value = purchases.apply_event(
                    user,
                    values[user],
                    event,
                    offset,
                    read_overflow,
                    changes.__setitem__,
                    self._max_entries,
                    self._trim_to,
                    [],
                )
            values[user] = changes[user] = value
        self.events += len(events)
        self._store.apply([*changes.items(), (position_key(_POSITION_NAME), b"%d" % position)], 0)

    def _select_events(self, records: Iterable[FetchedRecord]) -> Iterator[tuple[int, bytes, Event]]:
        user = None if self._selection.user is None else self._selection.user.encode()
        order = self._selection.order
        for offset, key, event in read_events(record for record in records if user is None or record[1] == user):
            # An erasure concerns all orders of its user.
            if order is None or isinstance(event, UserErased) or str(event.data.order_id) == order:
                yield offset, key, event

    def _scan_overflow(self, prefix: bytes, changes: Mapping[bytes, bytes | None]) -> list[tuple[bytes, bytes]]:
        """Return the overflow pairs of a user, including changes that are not stored yet."""
        pairs: dict[bytes, bytes | None] = dict(self._store.scan(prefix))
        pairs |= {key: value for key, value in changes.items() if key.startswith(prefix)}
        return [(key, value) for key, value in pairs.items() if value is not None]

    def read_users(self) -> Iterator[tuple[bytes, list[Purchase]]]:
        """Yield all users, sorted by the bytes of their ids, each with all stored purchases."""
        for user, pairs in groupby(self._store.scan(), lambda pair: pair[0].partition(b"\x00")[0]):
            yield user, [purchase for key, value in pairs for purchase in purchases.entry_purchases(key, value)]

    def read_purchases(self, user: str) -> list[Purchase]:
        """Return all stored purchases of a user, removed ones included."""
        key = user.encode()
        return purchases.all_purchases(self._store.get(key), [value for _, value in self._store.scan(key + b"\x00")])

    def close(self, is_complete: bool) -> None:
        """Close the store, and delete it if the comparison is complete."""
        if not is_complete:
            self._store.close()
            return
        self._store.delete()
        if not any(self._folder.iterdir()):
            self._folder.rmdir()


def _folder_name(settings: Settings, selection: EventSelection) -> str:
    # The text is part of the format on disk: another version of Lately must find an interrupted
    # replay.
    text = (
        f"({settings.id!r}, {settings.topic_prefix!r}, Part(user={selection.user!r}, order={selection.order!r}, "
        f"since={selection.since_ms!r}, start={selection.start!r}))"
    )
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
