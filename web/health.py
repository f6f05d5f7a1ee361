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
from app.services.dead_letter_counts import open_letters
from app.services.progress import progress
from app.services.source_status import source_view
from app.services.watchdog import watchdog
from chunks.table import Table
from web.http import parameters
from web.http.problems import Problem
from web.routing import RETRY_AFTER_S, ready


@app.page("/livez")
async def livez(self, request: Request) -> Response:
    """200 as long as the process answers at all."""
    return _json({"status": "ok"})


@app.page("/readyz")
async def readyz(self, request: Request) -> Response:
    """200 once the tables are recovered, 503 until then and while something is stuck; with `?verbose` how far it is."""
    parameters.only(request, "verbose")
    more = _verbose() if "verbose" in request.query else {}
    if watchdog.stuck:
        more["reasons"] = list(dict.fromkeys(one.reason for one in watchdog.stuck))
        first = watchdog.stuck[0]
        raise Problem(503, first.reason, str(first), retry_after_s=RETRY_AFTER_S, more=more)
    if not ready():
        detail = "the tables are being recovered" if app.tables.recovery.in_recovery else "waiting for partitions"
        raise Problem(503, "not-ready", detail, retry_after_s=RETRY_AFTER_S, more=more)
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
                "warming": _of(table, app.assignor.warming),
            }
            for table in app.tables.values()
        },
    }


def _of(table: Table, changelogs: Iterable[TP]) -> list[int]:
    return sorted(tp.partition for tp in changelogs if tp.topic == table.changelog)


@app.page("/metrics")
async def numbers(self, request: Request) -> Response:
    """All counters in Prometheus' text format."""
    metrics.READY.set(ready())
    metrics.RECOVERY.set(app.tables.recovery.progress.seconds)
    oldest = math.inf
    for one in open_letters.by_reason:
        metrics.OPEN.labels(one.reason).set(one.records)
        oldest = min(oldest, one.since)
    metrics.OPEN_AGE.set(math.nan if oldest == math.inf else time.time() - oldest)
    verified = source_view.verified
    clean_at = None if verified is None else verified.clean_at
    metrics.VERIFY_AGE.set(math.nan if clean_at is None else time.time() - clean_at / 1e6)
    for table in app.tables.values():
        metrics.INCOMPLETE.labels(table.name).set(sum(store.incomplete for store in table.stores.values()))
    newest = source_view.newest
    metrics.SILENT.set(math.nan if newest is None else time.time() - newest.at / 1e6)
    metrics.LAG.clear()
    for one in progress.readings():
        if one.lag is not None:
            metrics.LAG.labels(one.topic, one.partition).set(one.lag)
    return Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _json(body: dict) -> Response:
    return Response(body=msgspec.json.encode(body), content_type="application/json", charset="utf-8")
