"""The state of the worker for orchestrators and Prometheus: /livez, /readyz and /metrics."""

from __future__ import annotations

import math
import time
from typing import TypedDict

from aiohttp.web import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app import metrics
from web.context import WebContext
from web.http import parameters
from web.http.problems import Problem
from web.http.routes import JSON, TEXT, Access, Parameter, Route
from web.http.schemas import AssignedPartitions, RecoveryState
from web.routing import RETRY_AFTER_S
from web.schemas import Liveness, Readiness


@Route("/livez", "Is the process alive", Access.OPEN, (JSON,), Liveness, tags=("operations",))
async def get_liveness(context: WebContext, request: Request) -> Liveness:
    """Respond 200 as long as the process can respond."""
    return Liveness("ok")


@Route(
    "/readyz",
    "Can the worker serve requests",
    Access.OPEN,
    (JSON,),
    Readiness,
    (
        Parameter(
            "verbose",
            "Add the progress of the recovery, the partitions and the problems of the source",
            {"type": "string"},
            example="",
        ),
    ),
    ("unknown-parameter", "not-ready", "no-progress", "recovery-stalled", "kafka-away", "source-silent"),
    tags=("operations",),
)
async def get_readiness(context: WebContext, request: Request) -> Readiness:
    """Respond 200 if the tables are recovered, 503 until then and while the worker is stuck.

    With `?verbose` the response contains the progress of the recovery, the partitions and the
    problems of the source.
    """
    parameters.require_known(request, "verbose")
    details = _details(context) if "verbose" in request.query else {}
    stalls = context.worker.stalls()
    if stalls:
        reasons = list(dict.fromkeys(stall.reason for stall in stalls))
        members = {**details, "reasons": reasons}
        raise Problem(503, reasons[0], str(stalls[0]), retry_after_s=RETRY_AFTER_S, members=members)
    if not context.ownership.is_ready():
        detail = "the tables are being recovered" if context.worker.is_recovering() else "waiting for partitions"
        raise Problem(503, "not-ready", detail, retry_after_s=RETRY_AFTER_S, members=details)
    return Readiness("ok", **details)


class Details(TypedDict, total=False):
    """The fields that `?verbose` adds."""

    recovery: RecoveryState
    partitions: dict[str, AssignedPartitions]
    source_problems: list[str]


def _details(context: WebContext) -> Details:
    progress = context.worker.recovery_progress()
    newest = context.source_status.newest
    return {
        "recovery": RecoveryState(
            progress.done, progress.total, progress.rate, round(progress.seconds, 3), progress.rebuilding
        ),
        "partitions": {
            table: AssignedPartitions(*partitions) for table, partitions in context.worker.partitions().items()
        },
        "source_problems": [problem.kind for problem in newest.problems] if newest else [],
    }


@Route("/metrics", "Metrics for Prometheus", Access.OPERATOR, (TEXT,), tags=("operations",))
async def get_metrics(context: WebContext, request: Request) -> Response:
    """Return all metrics in the text format of Prometheus."""
    _set_worker_metrics(context)
    _set_source_metrics(context)
    return Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _set_worker_metrics(context: WebContext) -> None:
    metrics.READY.set(context.ownership.is_ready())
    metrics.RECOVERY.set(context.worker.recovery_progress().seconds)
    oldest = math.inf
    for count in context.dead_letter_counts.by_reason:
        metrics.OPEN_DEAD_LETTERS.labels(count.reason).set(count.records)
        oldest = min(oldest, count.since)
    metrics.OLDEST_DEAD_LETTER_AGE.set(math.nan if oldest == math.inf else time.time() - oldest)
    for table, partitions in context.worker.incomplete_partitions().items():
        metrics.INCOMPLETE.labels(table).set(partitions)
    metrics.LAG.clear()
    for progress in context.worker.partition_progress():
        if progress.lag is not None:
            metrics.LAG.labels(progress.topic, progress.partition).set(progress.lag)


def _set_source_metrics(context: WebContext) -> None:
    verified, newest = context.source_status.verified, context.source_status.newest
    clean_at = None if verified is None else verified.clean_at
    metrics.VERIFY_AGE.set(math.nan if clean_at is None else time.time() - clean_at / 1e6)
    metrics.SOURCE_SILENCE.set(math.nan if newest is None else time.time() - newest.written_at / 1e6)
