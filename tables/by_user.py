"""by_user: user id -> the user's newest purchases; user id, zero byte, purchase -> each of the others."""

from __future__ import annotations

from app import folds
from app.core import app, orders, settings
from app.freshness import Freshness, source_view
from app.models import Event
from chunks import Chunk

by_user = app.Table(
    "by_user",
    fed_by=orders,
    partitions=settings.partitions,
    help="All purchases of each user, the newest in one value; msgpack, see app.folds.Recent.",
)

#: A value is cut when it holds more purchases than the first number, to the second.
MOST = settings.recent_limit + settings.recent_spare
LEAST = settings.recent_limit + settings.recent_spare // 2


def shown(user_id: str, partition: int, limit: int) -> list[folds.Register]:
    """A user's newest purchases; a user never seen has none. The partition must be owned here."""
    user = user_id.encode()
    others = by_user.scan(partition, user + b"\x00")
    return folds.shown(by_user.read(partition, user), lambda: (value for _, value in others), limit)


def freshness(partition: int) -> Freshness:
    """How fresh what this table says of a partition's users is. Raises ClosedPartition."""
    return source_view.freshness(partition, by_user.position(partition))


def remember(chunk: Chunk, events: list[tuple[bytes, Event]]) -> list[folds.Difference]:
    """Add the events, each with its user's id, to the users' purchases; what that changed about each purchase."""
    table = chunk.view(by_user)
    values = table.get_many({user for user, _ in events})
    differences: list[folds.Difference] = []
    changed: dict[bytes, bytes | None] = {}
    fold, earlier, forget = folds.remember, table.get, table.__setitem__
    for user, event in events:
        before = values[user]
        after = fold(user, before, event, earlier, forget, MOST, LEAST, differences)
        if after is not before:
            values[user] = changed[user] = after
    table.update(changed)
    return differences
