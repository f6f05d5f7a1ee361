"""What commands that compare the tables share: two sides user by user, and the events that make a table right."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from app.control.generation import require_active_generation
from app.settings import Settings
from app.topics import Topics
from commands.worker_client import WorkerClient
from domain.differences import PurchaseDifference, find_differences
from domain.differences import build_repair as event_of
from domain.purchases import Purchase
from domain.values import rfc3339
from source.events import build_record
from source.outbox import OutboxRow
from source.publisher import open_publisher

#: Users that are looked at again at once, and how often while their purchases keep changing.
BATCH_USERS, MAX_ROUNDS = 500, 5

#: Compares users as of now: the differences that are real, those that may be on their way, and the version that the
#: event which repairs one takes where the table does not know the purchase.
Comparison = Callable[
    [list[str]],
    Awaitable[tuple[list[PurchaseDifference], list[PurchaseDifference], Callable[[PurchaseDifference], int]]],
]


async def recheck(
    users: list[str],
    bracket: Comparison,
    tell: Callable[[PurchaseDifference], None],
    repair: Callable[[list[PurchaseDifference], Callable[[PurchaseDifference], int]], Awaitable[None]] | None,
) -> int:
    """Tell what really differs of these users, each difference once, and repair it; how many keep changing.

    Users of whom something may be on its way are compared again.
    """
    told: set[tuple] = set()
    touched: list[PurchaseDifference] = []
    for _ in range(MAX_ROUNDS):
        confirmed, touched, version = await bracket(users)
        new = [one for one in confirmed if (one.user_id, one.identity) not in told]
        told |= {(one.user_id, one.identity) for one in new}
        for one in new:
            tell(one)
        if repair is not None and new:
            await repair(new, version)
        users = sorted({one.user_id for one in touched})
        if not users:
            break
    return len(touched)


async def publish_repairs(
    settings: Settings,
    tables: WorkerClient,
    found: list[PurchaseDifference],
    version: Callable[[PurchaseDifference], int],
    source: str,
) -> list[PurchaseDifference]:
    """Publish what makes the table right, wait until it is applied; which differences are none any more.

    `version` is that of a purchase which the table does not know, `source` the one that the events name.
    """
    topics, now = Topics(settings), rfc3339(time.time_ns() // 1000)
    records = []
    for one in found:
        kind, at, data = event_of(one, version(one))
        row = OutboxRow(at, at, str(uuid.uuid4()), kind, data.decode(), None, now)
        records.append(build_record(row, source, topics, settings))
    async with require_active_generation(settings), open_publisher(settings) as publisher:
        await publisher.publish(records)
        offsets = dict(publisher.offsets)
    applied = await tables.read_purchases(sorted({one.user_id for one in found}), offsets)
    known = {(user, one.identity): one for user, registers in applied.items() for one in registers}
    return [one for one in found if _mended(one, known.get((one.user_id, one.identity)))]


def _mended(one: PurchaseDifference, now: Purchase | None) -> bool:
    """Whether the table says what it should; a newer change that came meanwhile is as good."""
    if now is not None and one.purchase is not None and now.version > one.purchase.version:
        return True
    rows = [] if one.row is None else [one.row]
    return not find_differences(one.user_id, rows, [] if now is None else [now], None)


async def merge_by_user(
    rows: Iterable[tuple[bytes, list[Purchase]]], registers: AsyncIterator[tuple[bytes, list[Purchase]]]
) -> AsyncIterator[tuple[str, list[Purchase], list[Purchase]]]:
    """Two sides in the order of users' ids, user by user."""
    left = iter(rows)
    one = next(left, None)
    async for user, known in registers:
        while one is not None and one[0] < user:
            yield one[0].decode(), one[1], []
            one = next(left, None)
        if one is not None and one[0] == user:
            yield user.decode(), one[1], known
            one = next(left, None)
        else:
            yield user.decode(), [], known
    while one is not None:
        yield one[0].decode(), one[1], []
        one = next(left, None)


async def unique_users(users: Iterable[str]) -> AsyncIterator[str]:
    """These users, each once."""
    for user in dict.fromkeys(users):
        yield user


async def batches_of_users(users: AsyncIterator[str], size: int) -> AsyncIterator[list[str]]:
    """The users in groups of at most `size`."""
    group: list[str] = []
    async for user in users:
        group.append(user)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
