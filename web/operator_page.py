"""How a worker does, for its operator: partitions, lag, pace, recovery, dead letters, and how the source stands."""

from __future__ import annotations

import time
from itertools import groupby

from aiohttp.web import Request, Response

from app.control.source_state import STATUS_TIMEOUT_S
from app.core import app
from domain.values import rfc3339
from web.http import parameters
from web.http.routes import HTML, Access, Route
from web.pages import page
from web.routing import ready

#: How often the page asks for itself, where scripts run.
EVERY_MS = 2000


@Route(
    "/operator",
    "State of the worker: partitions, lag, throughput, recovery, dead letters, source",
    Access.OPERATOR,
    (HTML,),
    problems=("unknown-parameter",),
    tags=("pages",),
)
async def get_operator_page(context: object, request: Request) -> Response:
    """How this worker does."""
    parameters.require_known(request)
    readings = app.progress.partitions()
    return page(
        "operator.html",
        worker=app.address,
        state=_state(),
        workers=_workers(),
        topics=[(topic, list(rows)) for topic, rows in groupby(readings, lambda one: one.topic)],
        standbys=_standbys(),
        requests=app.progress.requests_per_s(),
        recovery=app.tables.recovery.progress,
        dead=_dead(),
        dead_complete=app.dead_letter_counts.is_complete,
        dead_more=app.dead_letter_counts.is_truncated,
        dead_topic=app.declared_topics.orders_dead.name,
        source=_source(),
        snapshot=app.source_status.snapshot,
        every_ms=EVERY_MS,
    )


def _state() -> str:
    if ready():
        return "It answers."
    return "Its tables are being recovered." if app.tables.recovery.in_recovery else "It waits for partitions."


def _workers() -> list[tuple[str, list[int]]]:
    """Address and partitions of every worker with the same agents."""
    topic = (app.tables.get("by_user") or next(iter(app.tables.values()))).changelog
    known = app.assignor.table_metadata(topic)
    return sorted((str(url).rstrip("/"), sorted(partitions.get(topic, ()))) for url, partitions in known.items())


def _standbys() -> list[tuple[str, int, int]]:
    """Table, partition and changelog position of every copy that is kept for another worker."""
    return [
        (table.name, partition, table.stores[partition].offset)
        for table in app.tables.values()
        for topic, partition in sorted(app.assignor.assigned_standbys())
        if topic == table.changelog and partition in table.stores
    ]


def _dead() -> list[tuple[str, int, str]]:
    """Reason, number and age of the oldest of the dead letters that are open."""
    now = time.time()
    return [(one.reason, one.records, _age(now - one.since)) for one in app.dead_letter_counts.by_reason if one.records]


def _age(seconds: float) -> str:
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _source() -> dict[str, str] | None:
    """What the source says of itself; None when none has ever run."""
    said = app.source_status.newest
    if said is None:
        return None
    silent_s = max(0.0, time.time() - said.written_at / 1e6)
    return {
        "Guarantee": f"{said.guarantee} ({'; '.join(said.reasons)})" if said.reasons else said.guarantee,
        "Mode": said.mode,
        "Publishes": said.leader if silent_s < STATUS_TIMEOUT_S else f"nobody: the last sign is {silent_s:.0f} s old",
        "Oldest change that is not published": f"{said.oldest_pending_s:.1f} s",
        "Published up to": "unknown" if said.as_of is None else rfc3339(said.as_of),
        "Equal to MySQL": _verified(),
        "Cannot see": ", ".join(said.unseen_changes) or "nothing: it sees every change",
    }


def _verified() -> str:
    """What the last comparison with the shop's database has found."""
    last = app.source_status.verified
    if last is None:
        return "never compared: lately verify"
    found = ", ".join(f"{number} {kind}" for kind, number in sorted(last.differences.items()) if number)
    clean = "never" if last.clean_at is None else f"as of {rfc3339(last.clean_at)}"
    return f"{clean}; last compared at {rfc3339(last.began_at)}: {found}" if found else clean
