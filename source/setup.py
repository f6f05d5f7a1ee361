"""The commands that prepare the shop's database, and clean up after themselves: setup and teardown."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone

import mysql.connector

from app.control import generation, source_state
from app.errors import BadSource
from app.kafka.admin import ensure_topics
from app.settings import OUTBOX, Settings
from source import guarantee, snapshot, triggers, watermark
from source.columns import quoted
from source.mysql import connect
from source.publisher import publishing

_AGE = re.compile(r"([0-9]{1,6})([mhdw])", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def setup(
    settings: Settings,
    since: str | None,
    say: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda rows, total: None,
) -> None:
    """Prepare the capture and, the first time, publish a snapshot of the orders since `since`.

    `since` is an age (30m, 12h, 1d, 2w), an RFC 3339 time, or None for all orders. Doing it again changes nothing; a
    snapshot that was interrupted goes on. Raises BadSource, ServerAway.
    """
    moment = None if since is None else moment_of(since)
    table = f"{settings.mysql_database}.{settings.source_table}"
    known = asyncio.run(_known(settings))
    if generation.layout(settings, known).since is None:
        say(f"generation {settings.generation} is still being filled: what the source knows of {table} comes with it")
        return
    before = known.get(source_state.SNAPSHOT)
    if settings.source_mode == OUTBOX:
        with closing(connect(settings)) as connection:
            triggers.install(connection, settings)
            version = snapshot.version_of(connection, settings)
        say(f"every change of {table} goes to {settings.source_outbox}")
        if before is not None and before.table == table and before.version == version and before.done:
            say(f"{table} was set up before")
            return
    else:
        if source_state.WATERMARK in known and before is not None and before.table == table and before.done:
            say(f"{table} was set up before")
            return
        asyncio.run(_begin_watermark(settings, say))
    taken = asyncio.run(snapshot.run(settings, since=moment, progress=progress))
    say(f"{table} is set up: {taken.rows} rows of before are published")


async def _known(settings: Settings) -> dict:
    await generation.require_begun(settings)
    await ensure_topics(settings)
    return await source_state.read(settings)


async def _begin_watermark(settings: Settings, say: Callable[[str], None]) -> None:
    with closing(connect(settings)) as connection:
        promised = guarantee.assess(connection, settings)
        for reason in promised.reasons:
            say(f"guarantee {promised.level}: {reason}")
        begun = watermark.begin(connection, settings, promised.level == source_state.PROVEN, say)
    async with publishing(settings) as publisher:
        await publisher.remember(begun)


def statements(settings: Settings) -> str:
    """What `setup` would execute, as SQL for people to read. Raises BadSource, ServerAway."""
    if settings.source_mode != OUTBOX:
        return "-- The mode watermark only reads: nothing is executed."
    with closing(connect(settings)) as connection:
        bodies = triggers.wanted_triggers(connection, settings).values()
    plain = [*triggers.tables(settings), *triggers.versions(settings, triggers.now())]
    parts = [*(f"{one};" for one in plain), "DELIMITER //", *(f"{one}//" for one in bodies), "DELIMITER ;"]
    note = "-- `lately source setup` executes this and takes a snapshot. By hand: `lately source snapshot` afterwards."
    return "\n\n".join([note, *parts])


def teardown(settings: Settings, force: bool, say: Callable[[str], None] = print) -> None:
    """Remove the triggers and the outbox; with rows that are not published yet only if `force`.

    Raises BadSource, ServerAway.
    """
    with closing(connect(settings)) as connection, connection.cursor() as cursor:
        try:
            known = triggers.first_version(connection, settings) is not None
            found = triggers.names(connection, settings)
            if known:
                if found:
                    # Then no transaction is open that has changed orders: the outbox has all there will ever be.
                    triggers.lock(connection, settings)
                cursor.execute(f"SELECT COUNT(*) FROM {quoted(settings.source_outbox)}")
                waiting = cursor.fetchone()[0]
                if waiting and not force:
                    raise BadSource(
                        f"{waiting} changes in {settings.source_outbox} are not published yet: "
                        "let `lately source` finish them, or give --force to lose them"
                    )
            # The triggers first: without the outbox they would make the shop's own statements fail.
            for name in found:
                cursor.execute(f"DROP TRIGGER {quoted(name)}")
                say(f"trigger {name} is removed")
            if known:
                cursor.execute(f"DROP TABLE {quoted(settings.source_outbox)}, {triggers.state_table(settings)}")
            say(f"table {settings.source_outbox} is removed" if known else "there is no outbox")
        except mysql.connector.Error as exc:
            raise triggers.refused("the outbox could not be removed", exc) from None


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
