"""`lately users erase`: erase all data of a user permanently, whatever is published later.

The shop's database decides: it must no longer contain rows of the user. The proof lists the data
that Lately erases and the data that it cannot erase (docs/decisions/012-erasure-is-an-event.md).
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import closing, suppress
from dataclasses import dataclass
from time import time_ns

import msgspec

from app.control.generation import require_active_generation
from app.errors import NotDeletedYet
from app.ids import require_user_id
from app.kafka import dead_letter_topic
from app.polling import poll_until
from app.settings import OUTBOX, Settings
from app.topics import Topics
from commands.worker_client import WorkerClient, open_worker_client
from domain.events import ERASED, ERASURE_SCHEMA, Erasure
from domain.values import rfc3339
from source import triggers, user_rows
from source.events import EVENT_HEADERS, OutgoingRecord
from source.mysql import connect, read_server_time
from source.outbox_table import locate_outbox
from source.publisher import open_publisher

#: How long an erasure may need to reach the table `baskets`, s.
BASKETS_TIMEOUT_S = 30
POLL_INTERVAL_S = 0.25


@dataclass
class ErasureOutcome:
    """Result of an erasure, or of its dry run.

    All purchases up to `version` are erased; `purchases` and `letters` count the live purchases and
    the dropped dead letters.
    """

    user: str
    version: int
    purchases: int
    letters: int
    #: Partition of `orders-dead` -> the offset below which settled records were deleted.
    deleted: dict[int, int]


async def erase_user(settings: Settings, user: str, worker: str | None, dry_run: bool = False) -> ErasureOutcome:
    """Erase a user; repeating it changes nothing.

    1. Take a version above that of every earlier change of the shop and below that of every later one.
    2. Check that the shop has no row and no unpublished change of the user.
    3. Publish the erasure, and wait until the workers have applied it.
    4. Drop the user's dead letters, and delete the records before the first open dead letter.

    Raises StillThere, UnknownTarget, ServerAway, BadSource.
    """
    require_user_id(user)
    async with open_worker_client(settings, worker) as worker_client:
        purchases = (await worker_client.read_purchases([user]))[user]
        # 1.
        version = 0 if dry_run else await asyncio.to_thread(_take_version, settings)
        version = max([version, *(purchase.version for purchase in purchases)])
        # 2.
        rows, unpublished = await asyncio.to_thread(user_rows.count_remaining, settings, user)
        if rows or unpublished:
            raise NotDeletedYet(
                f"the shop's database still has {rows} rows of this user, and {unpublished} changes that are not "
                "published yet: delete the rows or give them another user, wait for `lately source`, then run this "
                "again"
            )
        live = sum(purchase.live for purchase in purchases)
        # 3.
        if not dry_run:
            await _publish(settings, worker_client, user, version)
        # 4.
        letters, _ = await dead_letter_topic.settle_letters(
            settings,
            lambda letter: is_record_of_user(user, letter.key, letter.value),
            dead_letter_topic.DROPPED,
            dry_run,
        )
        deleted = {} if dry_run else await dead_letter_topic.delete_settled(settings)
    return ErasureOutcome(user, version, live, len(letters), deleted)


def is_record_of_user(user: str, key: bytes | None, value: bytes | None) -> bool:
    """Return whether the key or the readable part of a dead letter names the user."""
    if key == user.encode():
        return True
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_user_reference(value or b"").user() == user
    return False


class _UserReference(msgspec.Struct):
    """The fields that may contain the user id, in an event and in a row of the shop."""

    data: object = None
    user_id: object = None

    def user(self) -> object:
        return self.data.get("user_id") if isinstance(self.data, dict) else self.user_id


_decode_user_reference = msgspec.json.Decoder(_UserReference).decode


def _take_version(settings: Settings) -> int:
    """Return a version between those of all earlier changes and those of all later ones."""
    with closing(connect(settings)) as connection:
        if settings.source_mode == OUTBOX:
            return triggers.reserve_version(connection, locate_outbox(connection, settings))
        return read_server_time(connection)


async def _publish(settings: Settings, worker_client: WorkerClient, user: str, version: int) -> None:
    """Publish the erasure, and wait until the tables `by_user` and `baskets` have applied it."""
    topics = Topics(settings)
    document = {
        "specversion": "1.0", "id": str(uuid.uuid4()), "source": f"/lately/{settings.id}", "type": ERASED,
        "time": rfc3339(time_ns() // 1000), "partitionkey": user, "datacontenttype": "application/json",
        "dataschema": ERASURE_SCHEMA, "data": Erasure(user, version),
    }  # fmt: skip
    erasure = OutgoingRecord(topics.orders.name, user.encode(), msgspec.json.encode(document), EVENT_HEADERS)
    async with require_active_generation(settings), open_publisher(settings, topics) as publisher:
        await publisher.publish([erasure])
        await worker_client.read_purchases([user], dict(publisher.offsets))

    async def is_applied_to_baskets() -> bool:
        # New purchases have a basket of their own.
        return bool(await worker_client.count_shown(user)) or not await worker_client.read_keys("baskets", user)

    await poll_until(is_applied_to_baskets, BASKETS_TIMEOUT_S, POLL_INTERVAL_S)
