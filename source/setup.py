"""`lately source setup` and `teardown`: prepare the shop's database, and clean it up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone

from app.control import generation, source_state
from app.control.identity import prepare_topics
from app.control.source_state import SourceStates, State
from app.errors import BadSource
from app.settings import OUTBOX, Settings
from app.topics import Topics
from domain.values import parse_rfc3339
from source import guarantee, outbox_ids, outbox_owner, restored, server_role, snapshot, watermark
from source.events import OutgoingRecord, build_record
from source.install import install
from source.mysql import Connection, connect
from source.outbox_owner import OutboxOwner
from source.outbox_table import displayed_outbox, locate_outbox, read_first_version
from source.publisher import open_publisher

_AGE = re.compile(r"([0-9]{1,6})([mhdw])", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def setup(
    settings: Settings,
    since: str | None,
    report: Callable[[str], None] = print,
    progress: snapshot.ReportProgress = lambda rows, total: None,
    *,
    take_over: bool = False,
) -> None:
    """Prepare the capture and, the first time, publish a snapshot of the orders since `since`.

    `since` is an age (30m, 12h, 1d, 2w), an RFC 3339 time, or None for all orders. `report`
    receives lines of text. A repetition changes nothing, but continues an interrupted snapshot.
    `take_over` ignores that the outbox belongs to other topics, or the topics to another shop.
    Raises BadSource, WrongIdentity, WrongGeneration, ServerAway.
    """
    since_time = None if since is None else parse_since(since)
    table = settings.shop_table
    if settings.source_mode == OUTBOX:
        _require_suitable_server(settings)
    states, cluster = asyncio.run(prepare_topics(settings))
    own = outbox_owner.owner_by_settings(settings, cluster)
    if generation.current_layout(settings, states).active_since is None:
        report(f"generation {settings.generation} is still being filled: it will contain the source's state of {table}")
        return
    finished = states.snapshot
    if finished is not None and (finished.table != table or not finished.is_done):
        finished = None
    if settings.source_mode == OUTBOX:
        with closing(connect(settings)) as connection:
            settings = locate_outbox(connection, settings)
            if not take_over:
                outbox_owner.require_owner(connection, settings, own, states.shop)
            first_version = read_first_version(connection, settings)
            is_older = restored.is_older(connection, settings, states)
            if is_older:
                asyncio.run(restored.note(connection, settings, states))
            _correct_next_id(connection, settings, report)
            install(connection, settings, report)
            _record_owner(connection, settings, own, states, take_over)
            restored.renew_versions(connection, settings, states, is_older, first_version, report)
            version = snapshot.snapshot_version(connection, settings)
            _report_guarantee(connection, settings, report)
        report(f"every change of {table} goes to {displayed_outbox(settings)}")
        is_set_up = finished is not None and finished.version == version
    else:
        is_set_up = finished is not None and states.watermark is not None
    if is_set_up:
        report(f"{table} was set up before")
        return
    if settings.source_mode != OUTBOX:
        with closing(connect(settings)) as connection:
            _record_owner(connection, settings, own, states, take_over)
        asyncio.run(_start_watermark(settings, report))
    result = asyncio.run(snapshot.run(settings, since=since_time, progress=progress))
    report(f"{table} is set up: {result.rows} existing rows are published")


def _record_owner(
    connection: Connection, settings: Settings, own: OutboxOwner, states: SourceStates, take_over: bool
) -> None:
    shop = outbox_owner.claim(connection, settings, own, states.shop, take_over=take_over)
    if shop != states.shop:
        asyncio.run(_write_state(settings, shop))


def _correct_next_id(connection: Connection, settings: Settings, report: Callable[[str], None]) -> None:
    """Set the next id of an existing outbox right after a row that no trigger wrote has moved it."""
    if read_first_version(connection, settings) is None:
        return
    problem = outbox_ids.find_problem(connection, settings)
    if problem is None:
        return
    report(problem)
    row = outbox_ids.read_largest_row(connection, settings)
    if row is not None:
        topics = Topics(settings)
        asyncio.run(_publish(settings, topics, build_record(row, "/lately/setup", topics, settings)))
        report(f"the row with the id {row.id} is removed, and is a dead letter now: `lately dlq list`")
    moved = outbox_ids.reset_next_id(connection, settings, row)
    report(f"the next id of {displayed_outbox(settings)} is right again, {moved} changes got ordinary ids")


async def _write_state(settings: Settings, state: State) -> None:
    async with open_publisher(settings, Topics(settings)) as publisher:
        await publisher.write_states(state)


async def _publish(settings: Settings, topics: Topics, record: OutgoingRecord) -> None:
    async with open_publisher(settings, topics) as publisher:
        await publisher.publish([record])


def _require_suitable_server(settings: Settings) -> None:
    """Raise BadSource before anything is created if the server is read-only, or a replica.

    Objects that are created on a replica end its replication when they are created on the primary,
    too. An outbox that exists is left to `_report_guarantee`.
    """
    with closing(connect(settings)) as connection:
        server_role.require_writable(connection)
        if read_first_version(connection, locate_outbox(connection, settings)) is None:
            server_role.require_no_replica(connection)


def _report_guarantee(connection: Connection, settings: Settings, report: Callable[[str], None]) -> str:
    """Report why the guarantee is not `proven`, and return its level."""
    assessment = guarantee.assess(connection, settings)
    for reason in assessment.reasons:
        report(f"guarantee {assessment.level}: {reason}")
    return assessment.level


async def _start_watermark(settings: Settings, report: Callable[[str], None]) -> None:
    with closing(connect(settings)) as connection:
        level = _report_guarantee(connection, settings, report)
        state = watermark.find_start(connection, settings, level == source_state.PROVEN, report)
    await _write_state(settings, state)


def parse_since(since: str, now: datetime | None = None) -> str:
    """Convert an age or a time to MySQL text in UTC, "YYYY-MM-DD HH:MM:SS.ffffff".

    Raises BadSource.
    """
    age = _AGE.fullmatch(since)
    now = now or datetime.now(timezone.utc)
    try:
        if age:
            moment = now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        else:
            moment = parse_rfc3339(since)
            if moment.tzinfo is None:
                raise ValueError(since)
        utc = moment.astimezone(timezone.utc).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise BadSource(
            f"--since {since!r} is neither an age like 12h or 1d nor a time like 2026-01-31T00:00:00Z"
        ) from None
    return utc.isoformat(sep=" ", timespec="microseconds")
