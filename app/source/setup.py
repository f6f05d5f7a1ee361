"""The commands that prepare the shop's database: setup and snapshot."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from app.config import Settings
from app.errors import BadSource
from app.source import outbox, triggers
from app.source.columns import shop_columns
from app.source.mysql import connect

_AGE = re.compile(r"([0-9]{1,6})([mhdw])", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def setup(settings: Settings, since: str | None, say=print) -> None:
    """Create the outbox and its triggers and, the first time, put a snapshot of the orders since `since` into it.

    `since` is an age (30m, 12h, 1d, 2w), an RFC 3339 time, or None for all orders. Raises BadSource, ServerAway.
    """
    moment = None if since is None else moment_of(since)
    connection = connect(settings)
    try:
        columns = shop_columns(connection, settings)
        triggers.install(connection, columns, settings)
        table = f"{settings.mysql_database}.{settings.source_table}"
        if triggers.snapshot_taken(connection, settings):
            say(f"{table} was set up before")
            return
        count = outbox.snapshot(connection, columns, settings, moment)
        say(f"{table} is set up: every change goes to {settings.source_outbox}, {count} rows of before are in it")
    finally:
        connection.close()


def snapshot(settings: Settings, since: str | None, say=print) -> None:
    """Put the orders since `since` (as in `setup`) into the outbox once more; newer versions are not touched."""
    moment = None if since is None else moment_of(since)
    connection = connect(settings)
    try:
        columns = shop_columns(connection, settings)
        count = outbox.snapshot(connection, columns, settings, moment)
        say(f"{count} rows are in {settings.source_outbox}")
    finally:
        connection.close()


def statements(settings: Settings) -> str:
    """What `setup` would execute, as SQL for people to read."""
    connection = connect(settings)
    try:
        columns = shop_columns(connection, settings)
    finally:
        connection.close()
    plain = [*triggers.tables(settings), *triggers.versions(settings, triggers.now())]
    bodies = triggers.triggers(columns, settings).values()
    parts = [*(f"{one};" for one in plain), "DELIMITER //", *(f"{one}//" for one in bodies), "DELIMITER ;"]
    note = "-- `lately source setup` executes this and takes a snapshot. By hand: `lately source snapshot` afterwards."
    return "\n\n".join([note, *parts])


def moment_of(since: str, now: datetime | None = None) -> str:
    """An age or a time as MySQL text in UTC, "YYYY-MM-DD HH:MM:SS.ffffff". Raises BadSource for anything else."""
    age = _AGE.fullmatch(since)
    now = now or datetime.now(timezone.utc)
    try:
        if age:
            moment = now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        else:
            moment = datetime.fromisoformat(since.replace("Z", "+00:00"))
            if moment.tzinfo is None:
                raise ValueError(since)
        utc = moment.astimezone(timezone.utc).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise BadSource(
            f"--since {since!r} is neither an age like 12h or 1d nor a time like 2026-01-31T00:00:00Z"
        ) from None
    return utc.isoformat(sep=" ", timespec="microseconds")
