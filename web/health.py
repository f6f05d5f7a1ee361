"""Is the worker alive, may it answer, and what does it count: /livez, /readyz, /metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import msgspec
from aiohttp.web import Request, Response
from faust.types import TP
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app import metrics
from app.core import app
from chunks import Table
from web import schemas
from web.http import parameters
from web.http.problems import Problem
from web.http.routes import JSON, TEXT, Access, Parameter, Route
from web.routing import RETRY_AFTER_S, ready


@Route("/livez", "Is the process alive", Access.OPEN, (JSON,), schemas.Liveness, tags=("operations",))
async def get_liveness(context: object, request: Request) -> Response:
    """200 as long as the process answers at all."""
    return _json({"status": "ok"})


@Route(
    "/readyz",
    "Can the worker serve requests",
    Access.OPEN,
    (JSON,),
    schemas.Readiness,
    (Parameter("verbose", "Add the progress of the recovery and the partitions", {"type": "string"}, example=""),),
    ("unknown-parameter", "not-ready", "no-progress", "recovery-stalled", "kafka-away", "source-silent"),
    tags=("operations",),
)
async def get_readiness(context: object, request: Request) -> Response:
    """200 once the tables are recovered, 503 until then and while something is stuck; with `?verbose` how far it is."""
    parameters.require_known(request, "verbose")
    more = _verbose() if "verbose" in request.query else {}
    if app.watchdog.stalls:
        more["reasons"] = list(dict.fromkeys(one.reason for one in app.watchdog.stalls))
        first = app.watchdog.stalls[0]
        raise Problem(503, first.reason, str(first), retry_after_s=RETRY_AFTER_S, members=more)
    if not ready():
        detail = "the tables are being recovered" if app.tables.recovery.in_recovery else "waiting for partitions"
        raise Problem(503, "not-ready", detail, retry_after_s=RETRY_AFTER_S, members=more)
    return _json({"status": "ok", **more})


def _verbose() -> dict[str, object]:
    progress = app.tables.recovery.progress
    return {
        "recovery": {
            "done": progress.done,
            "total": progress.total,
            "records_per_second": progress.rate,
            "seconds": round(progress.seconds, 3),
            "rebuilding": progress.rebuilding,
        },
        "partitions": {
            table.name: {
                "active": _of(table, app.assignor.assigned_actives()),
                "standby": _of(table, app.assignor.assigned_standbys()),
                "warming": _of(table, app.assignor.warmup),
            }
            for table in app.tables.values()
        },
    }


def _of(table: Table, changelogs: Iterable[TP]) -> list[int]:
    return sorted(tp.partition for tp in changelogs if tp.topic == table.changelog)


@Route("/metrics", "Metrics for Prometheus", Access.OPERATOR, (TEXT,), tags=("operations",))
async def get_metrics(context: object, request: Request) -> Response:
    """All counters in Prometheus' text format."""
    metrics.READY.set(ready())
    metrics.RECOVERY.set(app.tables.recovery.progress.seconds)
    oldest = math.inf
    for one in app.dead_letter_counts.by_reason:
        metrics.OPEN.labels(one.reason).set(one.records)
        oldest = min(oldest, one.since)
    metrics.OPEN_AGE.set(math.nan if oldest == math.inf else time.time() - oldest)
    verified = app.source_status.verified
    clean_at = None if verified is None else verified.clean_at
    metrics.VERIFY_AGE.set(math.nan if clean_at is None else time.time() - clean_at / 1e6)
    for table in app.tables.values():
        metrics.INCOMPLETE.labels(table.name).set(sum(store.incomplete for store in table.stores.values()))
    newest = app.source_status.newest
    metrics.SILENT.set(math.nan if newest is None else time.time() - newest.written_at / 1e6)
    metrics.LAG.clear()
    for one in app.progress.partitions():
        if one.lag is not None:
            metrics.LAG.labels(one.topic, one.partition).set(one.lag)
    return Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _json(body: dict) -> Response:
    return Response(body=msgspec.json.encode(body), content_type="application/json", charset="utf-8")
