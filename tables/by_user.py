"""by_user: user id -> the user's newest purchases."""

from __future__ import annotations

from app import folds
from app.core import app, settings
from app.models import Event

by_user = app.Table(
    "by_user",
    key_type=bytes,
    value_type=bytes,
    partitions=settings.partitions,
    help="The newest purchases of each user; msgpack, see app.folds.Recent.",
)


def recent(user_id: str, partition: int) -> folds.Recent:
    """What is known of a user's purchases; a user never seen has none. The partition must be owned here."""
    return folds.decode_recent(by_user.data.read(partition, user_id.encode()))


def remember(event: Event) -> None:
    """Add one event to its user's purchases; only the agent of the same name may call this.

    The value is written even when the event changes nothing: after a crash the local table can be ahead of the
    changelog, and the repeated event is what brings the changelog up to it.
    """
    key = event.data.user_id.encode()
    state = folds.decode_recent(by_user.get(key))
    keep = settings.recent_limit + settings.recent_spare
    by_user[key] = folds.encode(folds.remember(state, [event], keep))
