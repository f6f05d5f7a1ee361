"""`lately users erase`: nothing of a user is remembered any more, whatever comes again.

The shop's database is the truth: its rows of the user have to be gone (or somebody else's) first. What Lately then
forgets, and what it cannot, is listed by the proof (docs/decisions/012-erasure-is-an-event.md).
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import closing, suppress
from dataclasses import dataclass
from time import time_ns

import msgspec

from app.control.generation import require_active_generation
from app.errors import StillThere
from app.ids import require_user
from app.kafka import dead_letter_topic
from app.settings import OUTBOX, Settings
from app.topics import Topics
from commands.worker_client import WorkerClient, open_worker_client
from domain.events import ERASED, ERASURE_SCHEMA, Erasure
from domain.values import rfc3339
from source import triggers, user_rows
from source.events import EVENT_HEADERS, OutgoingRecord
from source.mysql import connect, read_server_time
from source.publisher import open_publisher

#: How long what follows from an erasure may take to reach the baskets.
PATIENCE_S = 30
AGAIN_AFTER_S = 0.25


@dataclass
class ErasureOutcome:
    """What was done, or would be: the version up to which all is forgotten, and the dead letters that were dropped."""

    user: str
    version: int
    purchases: int
    letters: int
    #: Partitions of `orders-dead` whose settled records were deleted, and the offsets below which they were.
    deleted: dict[int, int]


async def erase_user(settings: Settings, user: str, worker: str | None, dry_run: bool = False) -> ErasureOutcome:
    """Erase a user; repeating it changes nothing.

    1. Take a version that every change of the shop so far is below, and every later one above. 2. See that the shop has
    no row of the user, and that no change is still to be published. 3. Publish the erasure, and wait until it is
    applied. 4. Drop the user's dead letters, and delete what is settled before the first one that is not.

    Raises StillThere, Unknown, ServerAway, BadSource.
    """
    require_user(user)
    async with open_worker_client(settings, worker) as tables:
        registers = (await tables.read_purchases([user]))[user]
        # 1.
        version = 0 if dry_run else await asyncio.to_thread(_version, settings)
        version = max([version, *(one.version for one in registers)])
        # 2.
        rows, waiting = await asyncio.to_thread(user_rows.count_remaining, settings, user)
        if rows or waiting:
            raise StillThere(
                f"the shop's database still has {rows} rows of this user, and {waiting} changes that are not published "
                "yet: delete the rows or give them another user, wait for `lately source`, then run this again"
            )
        live = sum(one.live for one in registers)
        # 3.
        if not dry_run:
            await _publish(settings, tables, user, version)
        # 4.
        letters, _ = await dead_letter_topic.settle_letters(
            settings, lambda one: is_of(user, one.key, one.value), dead_letter_topic.DROPPED, dry_run
        )
        deleted = {} if dry_run else await dead_letter_topic.delete_settled(settings)
    return ErasureOutcome(user, version, live, len(letters), deleted)


def is_of(user: str, key: bytes | None, value: bytes | None) -> bool:
    """Whether a dead letter is of a user, by its key or by what can be read of its value."""
    if key == user.encode():
        return True
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_letter(value or b"").said() == user
    return False


class _Letter(msgspec.Struct):
    """What may name the user of an event, or of a row of the shop."""

    data: object = None
    user_id: object = None

    def said(self) -> object:
        return self.data.get("user_id") if isinstance(self.data, dict) else self.user_id


_decode_letter = msgspec.json.Decoder(_Letter).decode


def _version(settings: Settings) -> int:
    """A version above those of all changes that are committed or under way, and below those of all later ones."""
    with closing(connect(settings)) as connection:
        if settings.source_mode == OUTBOX:
            return triggers.reserve_version(connection, settings)
        return read_server_time(connection)


async def _publish(settings: Settings, tables: WorkerClient, user: str, version: int) -> None:
    document = {
        "specversion": "1.0", "id": str(uuid.uuid4()), "source": f"/lately/{settings.id}", "type": ERASED,
        "time": rfc3339(time_ns() // 1000), "partitionkey": user, "datacontenttype": "application/json",
        "dataschema": ERASURE_SCHEMA, "data": Erasure(user, version),
    }  # fmt: skip
    erasure = OutgoingRecord(Topics(settings).orders.name, user.encode(), msgspec.json.encode(document), EVENT_HEADERS)
    async with require_active_generation(settings), open_publisher(settings) as publisher:
        await publisher.publish([erasure])
        await tables.read_purchases([user], dict(publisher.offsets))
    for _ in range(int(PATIENCE_S / AGAIN_AFTER_S)):
        if await tables.count_shown(user) or not await tables.read_keys("baskets", user):
            break
        await asyncio.sleep(AGAIN_AFTER_S)
