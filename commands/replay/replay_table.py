"""A shadow of the table by_user: the same fold over a part of `orders`, on the disk of whoever compares."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

from app.errors import BadSource
from app.kafka.order_log import EventSelection, OrderLog
from app.settings import Settings
from chunks import Store, position_key
from domain import purchases
from domain.events import ERASED, Event, read_events
from domain.purchases import Purchase

_POSITION = "orders"


class ReplayTable:
    """One partition of it; a fold that was interrupted goes on where it was."""

    def __init__(self, settings: Settings, part: EventSelection, partition: int) -> None:
        name = hashlib.blake2b(repr((settings.id, settings.topic_prefix, part)).encode(), digest_size=6).hexdigest()
        self._folder = Path(f"{settings.folder}-replay") / name
        self._part, self._partition = part, partition
        self._most = settings.recent_limit + settings.recent_spare
        self._least = settings.recent_limit + settings.recent_spare // 2
        try:
            self._store = Store(self._folder / f"{partition}.db").open()
        except Exception as exc:  # rocksdict raises nothing else
            if "lock" not in str(exc).lower():
                raise
            raise BadSource(f"another replay is at work in {self._folder}: wait for its end, or stop it") from None
        self.events = 0

    async def fold(
        self, log: OrderLog, first: int, progress: Callable[[int, int], None] = lambda done, end: None
    ) -> int:
        """Fold what there is from the offset `first`, or from where it was, to the end as of now; that offset."""
        end = await log.end_offset(self._partition)
        at = self._store.position(_POSITION)
        if at is not None and not first <= at <= end:
            self._store.wipe()
            at = None
        async for run in log.read_ranges(self._partition, first if at is None else at, end):
            await asyncio.to_thread(self._fold, run.records, run.next)
            progress(run.next, end)
        return end

    def _fold(self, records: list[tuple[int, bytes | None, bytes | None]], position: int) -> None:
        events = list(self._events(records))
        users = list({user for _, user, _ in events})
        values = dict(zip(users, self._store.get_many(users), strict=True)) if users else {}
        changes: dict[bytes, bytes | None] = {}

        def earlier(key: bytes) -> bytes | None:
            return changes[key] if key in changes else self._store.get(key)

        for offset, user, event in events:
            if event.type == ERASED:
                beside = self._beside(user + b"\x00", changes)
                after = purchases.erase(user, values[user], event.data.version, beside, changes.__setitem__, [])
            else:
                after = purchases.apply_event(
                    user, values[user], event, offset, earlier, changes.__setitem__, self._most, self._least, []
                )
            values[user] = changes[user] = after
        self.events += len(events)
        self._store.apply([*changes.items(), (position_key(_POSITION), b"%d" % position)], 0)

    def _events(self, records: list[tuple[int, bytes | None, bytes | None]]) -> Iterator[tuple[int, bytes, Event]]:
        user = None if self._part.user is None else self._part.user.encode()
        for offset, key, event in read_events(one for one in records if user is None or one[1] == user):
            # An erasure is of all orders of its user.
            if self._part.order is None or event.type == ERASED or str(event.data.order_id) == self._part.order:
                yield offset, key, event

    def _beside(self, prefix: bytes, changes: Mapping[bytes, bytes | None]) -> list[tuple[bytes, bytes]]:
        """What is kept beside a user's value, with changes that are not written yet."""
        known = dict(self._store.scan(prefix))
        known |= {key: value for key, value in changes.items() if key.startswith(prefix)}
        return [(key, value) for key, value in known.items() if value is not None]

    def users(self) -> Iterator[tuple[bytes, list[Purchase]]]:
        """All users in the order of their ids' bytes, each with all that is known of their purchases."""
        for user, pairs in groupby(self._store.scan(), lambda pair: pair[0].partition(b"\x00")[0]):
            yield user, [one for key, value in pairs for one in purchases.entry_purchases(key, value)]

    def registers(self, user: str) -> list[Purchase]:
        """All that is known of a user's purchases."""
        key = user.encode()
        return purchases.all_purchases(self._store.get(key), [value for _, value in self._store.scan(key + b"\x00")])

    def close(self, done: bool) -> None:
        """Close it, and delete it where all was compared."""
        self._store.close()
        if done:
            shutil.rmtree(self._store.path)
            if not any(self._folder.iterdir()):
                shutil.rmtree(self._folder)
