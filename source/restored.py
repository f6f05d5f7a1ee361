"""`lately source setup` on a database that may be older than the published changes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from app.control.source_state import CaptureState, SourceStates
from app.settings import Settings
from app.topics import Topics
from source import versions
from source.mysql import Connection, read_server_name, read_server_time
from source.outbox_table import read_first_version
from source.publisher import open_publisher


def is_older(connection: Connection, settings: Settings, states: SourceStates) -> bool:
    """Return whether the database is older than the changes in Kafka; call it before `install`.

    It is when the outbox would assign published versions again, when its first version is not the
    newest one, and when another server has no outbox. Raises mysql.connector.Error.
    """
    capture = states.capture
    first_version = read_first_version(connection, settings)
    if first_version is None:
        return capture is not None and capture.server not in ("", read_server_name(connection))
    is_first_older = capture is not None and first_version < capture.first_version
    return is_first_older or versions.read_next_id(connection, settings) <= states.highest_version


async def note(connection: Connection, settings: Settings, states: SourceStates) -> None:
    """Store in Kafka that the database is older: the source reports it until a verification."""
    table = settings.shop_table
    state = states.capture or CaptureState(table=table)
    state = msgspec.structs.replace(
        state, table=table, restored_at=read_server_time(connection), highest_version=states.highest_version
    )
    async with open_publisher(settings, Topics(settings)) as publisher:
        await publisher.write_states(state)


def renew_versions(
    connection: Connection,
    settings: Settings,
    states: SourceStates,
    older: bool,
    first_version_before: int | None,
    report: Callable[[str], None],
) -> None:
    """Begin versions anew when changes may be missing or were published before a restore.

    Then `setup` publishes all rows anew. New triggers have new versions already; rows that wait in
    an older outbox need new ones, too. Raises BadSource, DatabaseAway.
    """
    capture = states.capture
    has_missed = capture is not None and capture.missed_since is not None
    if not (older or has_missed):
        return
    if older or read_first_version(connection, settings) == first_version_before:
        versions.restart_versions_above(settings, states.highest_version)
    cause = "the database is older than the published changes" if older else "changes may have been missed"
    report(f"{cause}: run `lately verify --repair` to remove what it does not contain any more")
