"""The page of the operator: partitions, lag, throughput, recovery, dead letters and the source."""

from __future__ import annotations

import time
from itertools import groupby

from aiohttp.web import Request, Response

from app.control.source_state import STATUS_TIMEOUT_S
from domain.values import rfc3339
from web.context import WebContext
from web.http import parameters
from web.http.routes import HTML, Access, Route
from web.pages import page

#: The script of the page reloads the content after this time.
RELOAD_MS = 2000


@Route(
    "/operator",
    "State of the worker: partitions, lag, throughput, recovery, dead letters, source",
    Access.OPERATOR,
    (HTML,),
    problems=("unknown-parameter",),
    tags=("pages",),
)
async def get_operator_page(context: WebContext, request: Request) -> Response:
    """Show the state of this worker."""
    parameters.require_known(request)
    worker, dead_letters = context.worker, context.dead_letter_counts
    return page(
        "operator.html",
        worker=worker.address(),
        state=_describe_state(context),
        workers=sorted(worker.workers().items()),
        topics=[(topic, list(rows)) for topic, rows in groupby(worker.partition_progress(), lambda row: row.topic)],
        standbys=worker.standby_positions(),
        requests=worker.requests_per_s(),
        recovery=worker.recovery_progress(),
        dead=_open_dead_letters(context),
        dead_complete=dead_letters.is_complete,
        dead_more=dead_letters.is_truncated,
        dead_topic=context.topics.orders_dead.name,
        source=_describe_source(context),
        snapshot=context.source_status.snapshot,
        every_ms=RELOAD_MS,
    )


def _describe_state(context: WebContext) -> str:
    if context.ownership.is_ready():
        return "It answers."
    return "Its tables are being recovered." if context.worker.is_recovering() else "It waits for partitions."


def _open_dead_letters(context: WebContext) -> list[tuple[str, int, str]]:
    """Return reason, number and age of the oldest of the open dead letters."""
    now = time.time()
    counts = context.dead_letter_counts.by_reason
    return [(count.reason, count.records, _format_age(now - count.since)) for count in counts if count.records]


def _format_age(seconds: float) -> str:
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _describe_source(context: WebContext) -> dict[str, str] | None:
    """Return the newest status of the source as rows of a table; None if no source has ever run."""
    status = context.source_status.newest
    if status is None:
        return None
    age_s = max(0.0, time.time() - status.written_at / 1e6)
    messages = {problem.message for problem in status.problems}
    reasons = [reason for reason in status.reasons if reason not in messages]
    guarantee = f"{status.guarantee} ({'; '.join(reasons)})" if reasons else status.guarantee
    problems = {f"Problem: {problem.kind}": problem.message for problem in status.problems}
    return {
        **problems,
        "Guarantee": guarantee,
        "Mode": status.mode,
        "Publishes": status.leader if age_s < STATUS_TIMEOUT_S else f"nobody: the last sign is {age_s:.0f} s old",
        "Oldest change that is not published": f"{status.oldest_pending_s:.1f} s",
        "Published up to": "unknown" if status.as_of is None else rfc3339(status.as_of),
        "Equal to MySQL": _describe_verification(context),
        "Cannot see": ", ".join(status.unseen_changes) or "nothing: it sees every change",
    }


def _describe_verification(context: WebContext) -> str:
    """Return the result of the last comparison with the shop's database."""
    result = context.source_status.verified
    if result is None:
        return "never compared: lately verify"
    differences = ", ".join(f"{number} {kind}" for kind, number in sorted(result.differences.items()) if number)
    clean = "never" if result.clean_at is None else f"as of {rfc3339(result.clean_at)}"
    return f"{clean}; last compared at {rfc3339(result.began_at)}: {differences}" if differences else clean
