"""Shared by commands that compare the table by_user: second comparisons and repairs."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import NamedTuple

from app.control.generation import require_active_generation
from app.settings import Settings
from app.topics import Topics
from commands.worker_client import WorkerClient
from domain.differences import PurchaseDifference, build_repair, find_differences
from domain.purchases import Purchase
from domain.values import rfc3339
from source.events import build_record
from source.outbox_row import OutboxRow
from source.publisher import open_publisher

#: Maximum number of users that are compared again together.
BATCH_USERS = 500
#: Maximum number of comparisons of a user whose purchases keep changing.
MAX_ROUNDS = 5

#: Returns the version of the repair of a purchase that the table does not contain.
RepairVersion = Callable[[PurchaseDifference], int]
#: Publishes repairs of differences.
Repair = Callable[[list[PurchaseDifference], RepairVersion], Awaitable[None]]


class Comparison(NamedTuple):
    """Differences of some users: confirmed ones, and those that an event in flight may explain."""

    confirmed: list[PurchaseDifference]
    in_flight: list[PurchaseDifference]
    version: RepairVersion


async def recheck(
    users: list[str],
    compare: Callable[[list[str]], Awaitable[Comparison]],
    report: Callable[[PurchaseDifference], None],
    repair: Repair | None,
) -> int:
    """Compare users again, report and repair each confirmed difference once.

    Return the number of undecided ones. Users with an event in flight are compared again, at most
    MAX_ROUNDS times.
    """
    reported: set[tuple[str, tuple[str | int, str]]] = set()
    in_flight: list[PurchaseDifference] = []
    for _ in range(MAX_ROUNDS):
        confirmed, in_flight, version = await compare(users)
        new = [difference for difference in confirmed if (difference.user_id, difference.identity) not in reported]
        reported |= {(difference.user_id, difference.identity) for difference in new}
        for difference in new:
            report(difference)
        if repair is not None and new:
            await repair(new, version)
        users = sorted({difference.user_id for difference in in_flight})
        if not users:
            break
    return len(in_flight)


async def publish_repairs(
    settings: Settings,
    worker_client: WorkerClient,
    differences: list[PurchaseDifference],
    version: RepairVersion,
    source: str,
) -> list[PurchaseDifference]:
    """Publish repairs, wait until the table contains them, and return the repaired differences.

    `source` is the CloudEvents source of the repairs.
    """
    topics, now = Topics(settings), rfc3339(time.time_ns() // 1000)
    records = []
    for difference in differences:
        event_type, event_version, data = build_repair(difference, version(difference))
        row = OutboxRow(event_version, event_version, str(uuid.uuid4()), event_type, data.decode(), None, now)
        records.append(build_record(row, source, topics, settings))
    async with require_active_generation(settings), open_publisher(settings, topics) as publisher:
        await publisher.publish(records)
        offsets = dict(publisher.offsets)
    users = sorted({difference.user_id for difference in differences})
    purchases = {
        (user, purchase.identity): purchase
        for user, user_purchases in (await worker_client.read_purchases(users, offsets)).items()
        for purchase in user_purchases
    }
    return [
        difference
        for difference in differences
        if _is_repaired(difference, purchases.get((difference.user_id, difference.identity)))
    ]


def _is_repaired(difference: PurchaseDifference, purchase: Purchase | None) -> bool:
    """Return whether the table contains the expected purchase or a newer version now."""
    before = difference.purchase
    if purchase is not None and before is not None and purchase.version > before.version:
        return True
    rows = [] if difference.row is None else [difference.row]
    return not find_differences(difference.user_id, rows, [] if purchase is None else [purchase], None)


async def merge_by_user(
    expected: Iterable[tuple[bytes, list[Purchase]]], actual: AsyncIterator[tuple[bytes, list[Purchase]]]
) -> AsyncIterator[tuple[str, list[Purchase], list[Purchase]]]:
    """Merge two sequences sorted by user id.

    Yield each user with the purchases of both sequences; a list may be empty.
    """
    remaining = iter(expected)
    head = next(remaining, None)
    async for user, purchases in actual:
        while head is not None and head[0] < user:
            yield head[0].decode(), head[1], []
            head = next(remaining, None)
        if head is not None and head[0] == user:
            yield user.decode(), head[1], purchases
            head = next(remaining, None)
        else:
            yield user.decode(), [], purchases
    while head is not None:
        yield head[0].decode(), head[1], []
        head = next(remaining, None)


async def unique_users(users: Iterable[str]) -> AsyncIterator[str]:
    """Yield each user once, in the order of the first occurrence."""
    for user in dict.fromkeys(users):
        yield user


async def batches_of_users(users: AsyncIterator[str], size: int) -> AsyncIterator[list[str]]:
    """Yield the users in lists of at most `size`."""
    batch: list[str] = []
    async for user in users:
        batch.append(user)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
